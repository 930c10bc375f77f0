"""Commits shared by threads: whoever writes while another commits waits and goes with the next commit.

A commit costs a wait for the disk. One thread leads: it carries out everything that has gathered in one
transaction, and hands on the lead to one of those who came meanwhile.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from runner.errors import RunnerError, StoreError
from runner_sqlite.connection import Store

T = TypeVar("T")


class _Task(Generic[T]):
    """What one thread wants written."""

    __slots__ = ("by", "error", "is_done", "is_leader", "result", "turn", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T], by: str) -> None:
        self.work = work
        self.by = by
        self.result: T | None = None
        self.error: BaseException | None = None
        self.is_done = False
        self.is_leader = False
        self.turn = threading.Lock()  # held until it is done or has the lead
        self.turn.acquire()


class Writer:
    """Carries out work on the store, grouped. Safe for several threads; `committed` is called by the
    leader after each transaction that changed something, with whose work all of it was, or ""."""

    def __init__(self, store: Store, committed: Callable[[str], None]) -> None:
        self._store = store
        self._committed = committed
        self._lock = threading.Lock()
        self._waiting: list[_Task[Any]] = []
        self._has_leader = False

    def do(self, work: Callable[[sqlite3.Connection], T], by: str = "") -> T:
        """The result of `work`, which is on the disk when this returns.

        `work` may be called again after a rollback, so it must keep nothing but what it returns. When it
        raises, nothing of it is kept and the others of its group are not concerned.
        """
        task = _Task(work, by)
        with self._lock:
            self._waiting.append(task)
            if not self._has_leader:
                self._has_leader = task.is_leader = True
        if not task.is_leader:
            self._wait(task)
        if task.is_leader and not task.is_done:
            self._lead()
        if task.error is not None:
            raise task.error
        return cast(T, task.result)

    def _wait(self, task: _Task[Any]) -> None:
        try:
            task.turn.acquire()
        except BaseException:  # an interrupt: the lead must not be left to one who is gone
            with self._lock:
                if task in self._waiting:
                    self._waiting.remove(task)
                if task.is_leader:
                    self._hand_on()
            raise

    def _lead(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting, []
        try:
            self._run(group)
        except BaseException as error:
            for task in group:
                if not task.is_done:
                    task.error = StoreError(f"interrupted ({error!r}); whether it was written is not known")
            raise
        finally:
            for task in group:
                task.is_done = True
                task.turn.release()
            with self._lock:
                self._hand_on()

    def _hand_on(self) -> None:
        self._has_leader = bool(self._waiting)
        if self._waiting:
            self._waiting[0].is_leader = True
            self._waiting[0].turn.release()

    def _run(self, group: list[_Task[Any]]) -> None:
        try:
            with self._store.write() as connection:
                before = connection.total_changes
                for task in group:
                    _carry_out(task, connection)
                changed = connection.total_changes != before
        except Exception as error:
            if len(group) > 1 and not isinstance(error, StoreError):
                for task in group:  # one of them is at fault and the others need not suffer
                    task.error = None
                    self._run([task])
                return
            for task in group:
                task.error = error
            return
        for task in group:
            task.is_done = True
        if changed:
            everybody = {task.by for task in group}
            self._committed(everybody.pop() if len(everybody) == 1 else "")


def _carry_out(task: _Task[Any], connection: sqlite3.Connection) -> None:
    before = connection.total_changes
    try:
        task.result = task.work(connection)
    except RunnerError as error:
        if connection.total_changes != before:
            raise
        task.error = error  # refused before anything was written: the group goes on
