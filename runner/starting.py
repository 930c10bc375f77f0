"""What starts runs in a daemon: the functions as they are pinned, and the trigger sources over them.

Loading jobs.yaml again happens here: everything new is checked before anything changes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from runner.admission import Pin, new_run, pin, triggers_of
from runner.app import Runner
from runner.config import Config, JobConfig
from runner.errors import ConfigError, UsageError
from runner.journal import Journal
from runner.loading import load
from runner.modules import module_problems
from runner.runs import Follower, NewRun
from runner.triggers import Intake, Trigger, TriggerSource


class Starting(Intake):
    """The Intake of a daemon, and the life of the sources that use it."""

    def __init__(self, runner: Runner, journal: Journal, clock: Callable[[], datetime]) -> None:
        self._runner, self._journal, self._clock = runner, journal, clock
        self.store = runner.store
        self._lock = threading.Lock()
        self._stopped = False
        self._pins: dict[str, tuple[JobConfig, Pin]] = {}
        """By job; one that left the file stays, for a source may just be about to start it."""
        self._triggers: list[Trigger] = []
        self._sources: dict[str, TriggerSource] = {}

    # Intake

    def now(self) -> datetime:
        """See Intake."""
        return self._clock()

    def new_run(self, trigger: Trigger, payload: bytes = b"") -> NewRun:
        """See Intake."""
        job, pinned = self._pins[trigger.job]
        return new_run(job, pinned, payload, trigger=trigger)

    def follow(self, followers: Sequence[Follower]) -> None:
        """See Intake."""
        self.store.follow(followers)

    def tell(self, level: str, message: str, **facts: Any) -> None:
        """See Intake."""
        self._journal.tell(level, message, **facts)

    # Life

    def prepare(self) -> None:
        """Register every function of the file and find its triggers. Raises RunnerError."""
        self._triggers = self._runner.triggers()
        self._register(self._runner.config)

    def start(self) -> None:
        """Start the sources of every kind of trigger that the file has."""
        self._take_up()

    def load_again(self) -> bool:
        """Take up the file, and the modules it names, as they are now; whether anything is other than
        before. Raises RunnerError, and then nothing has changed."""
        before = self._runner.config
        config = load(before.path, self._runner.plugins.catalogue)
        if (config.namespace, config.registry) != (before.namespace, before.registry):
            raise UsageError("`namespace` and `registry` cannot change while a daemon runs; start it again")
        triggers = triggers_of(config, self._runner.trigger_source)
        self._check_modules(config)
        self._runner.config = config
        try:
            changed = self._register(config)
        except BaseException:
            self._runner.config = before
            raise
        if config == before:
            return changed
        self._triggers = triggers
        self._take_up()
        return True

    def stop(self) -> None:
        """Stop every source."""
        with self._lock:
            self._stopped = True
            for source in self._sources.values():
                source.stop()

    @property
    def limits(self) -> dict[str, int]:
        """By queue, how many of its runs may be running at once."""
        limits = dict(self._runner.config.queues)
        for kind, triggers in self._by_kind().items():
            limits.update(self._runner.trigger_source(kind).limits(triggers))
        return limits

    def facts(self) -> dict[str, int]:
        """Counts for the log and the status."""
        return {"jobs": len(self._runner.config.jobs), "triggers": len(self._triggers)}

    def _check_modules(self, config: Config) -> None:
        problems = module_problems(config, self._runner.plugins.catalogue, file=str(config.path))
        if problems:
            raise ConfigError(problems)
        for function in config.functions.values():
            self._runner.module_of(function)  # compiles it; what the builder made is kept

    def _register(self, config: Config) -> bool:
        """Register every function of the file; whether one has a new version, which is told."""
        functions, changed = {}, False
        for name in config.functions:
            self._runner.prepare(name)  # engines start while modules are built and registered
        for name in config.functions:
            registered = self._runner.register(name)
            functions[name] = registered.function
            if registered.changed:
                changed = True
                self.tell("info", f"{name} is version {registered.function.version} now")
        self._pins |= {job.name: (job, pin(config, job, functions)) for job in config.jobs.values()}
        return changed

    def _by_kind(self) -> dict[str, list[Trigger]]:
        kinds: dict[str, list[Trigger]] = {}
        for trigger in self._triggers:
            kinds.setdefault(trigger.kind, []).append(trigger)
        return kinds

    def _take_up(self) -> None:
        with self._lock:
            if self._stopped:
                return
            kinds = self._by_kind()
            for kind, source in self._sources.items():
                source.replace(kinds.pop(kind, []))
            for kind, triggers in kinds.items():
                source = self._sources[kind] = self._runner.trigger_source(kind)
                source.start(triggers, self)
