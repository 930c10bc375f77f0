"""Finds, loads and checks plugins one by one, and holds what they provide.

A plugin is an entry point of the group `runner`. One that is broken is recorded with its error and
left out; nothing else changes. What the hooks mean is in runner.hookspecs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pluggy

from runner import entry_points, hookspecs
from runner.contracts import Builder, FunctionExecutor, FunctionRegistry, Provider
from runner.errors import PluginUnavailable
from runner.models import Function, InvocationContext, InvocationResult

if TYPE_CHECKING:
    from runner.records import Sink, Source
    from runner.triggers import TriggerSource

OWN_DISTRIBUTION = "runner"
"""The distribution whose plugins always load, and first."""
ONLY_VARIABLE = "RUNNER_PLUGINS"
PREFIX = f"{hookspecs.PROJECT}_"

NOTHING: Mapping[str, tuple[str, ...]] = MappingProxyType({})
Before = Callable[[Function, InvocationContext], None]
After = Callable[[Function, InvocationContext, InvocationResult], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginInfo:
    """What is known of one plugin, loaded or not."""

    name: str
    """Its entry point's name, which RUNNER_PLUGINS and `runner plugins show` take."""
    distribution: str
    """The package it was installed with; empty when it is not installed."""
    version: str
    """That package's version."""
    module: str
    """What its entry point names."""
    hooks: tuple[str, ...] = ()
    """The hooks it implements, by name."""
    provides: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: NOTHING)
    """The names it adds to each catalogue (`executors`, ...); of a failed one, those it would add."""
    error: str | None = None
    """Why it is disabled; None when it works."""

    @property
    def is_shipped(self) -> bool:
        """Whether it comes with runner itself."""
        return self.distribution == OWN_DISTRIBUTION

    def __str__(self) -> str:
        return f"{self.title} is disabled: {self.error}" if self.error else self.title

    @property
    def title(self) -> str:
        """How messages name it: `shout (runner-shout 1.2)`."""
        return f"{self.name} ({self.distribution} {self.version})" if self.distribution else self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Plugins:
    """The plugins of one program."""

    catalogue: Providers
    """What they provide."""
    infos: tuple[PluginInfo, ...]
    """Every plugin that was to be loaded, in the order of loading."""
    before_invocation: Before | None = None
    """Calls every plugin's runner_before_invocation; None when there is none, so that an invocation
    pays nothing. Never raises: a plugin's exception is told once."""
    after_invocation: After | None = None
    """The same for runner_after_invocation."""

    @property
    def failures(self) -> tuple[PluginInfo, ...]:
        """Those that are disabled because something is wrong with them."""
        return tuple(info for info in self.infos if info.error is not None)


class Providers:
    """Every provider of the working plugins, by kind and name. Kinds are the hooks' names without
    `runner_`: `registries`, `executors`, `builders`, `triggers`, `sources`, `sinks`."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self._providers: dict[str, dict[str, Provider[Any]]] = {kind: {} for kind in kinds}
        self._owners: dict[tuple[str, str], str] = {}
        self._failures: list[PluginInfo] = []  # may have provided what nobody does

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds there are, in the order of the hooks."""
        return tuple(self._providers)

    def of(self, kind: str) -> Mapping[str, Provider[Any]]:
        """The providers of one kind by name, those shipped with runner first."""
        return MappingProxyType(self._providers[kind])

    @property
    def registries(self) -> Mapping[str, Provider[FunctionRegistry]]:
        """What `registry:` can name."""
        return self.of("registries")

    @property
    def executors(self) -> Mapping[str, Provider[FunctionExecutor]]:
        """What `executor:` can name."""
        return self.of("executors")

    @property
    def builders(self) -> Mapping[str, Provider[Builder]]:
        """What compiles `source:` files; a key is the suffixes joined by a comma."""
        return self.of("builders")

    @property
    def triggers(self) -> Mapping[str, Provider[TriggerSource]]:
        """The kinds that `triggers:` can name."""
        return self.of("triggers")

    @property
    def sources(self) -> Mapping[str, Provider[Source]]:
        """The formats that a batch's `input:` can have."""
        return self.of("sources")

    @property
    def sinks(self) -> Mapping[str, Provider[Sink]]:
        """The formats that a batch's `output:` can have."""
        return self.of("sinks")

    def get(self, kind: str, name: str) -> Provider[Any]:
        """The provider. Raises PluginUnavailable, which names the nearest name and every failed
        plugin that may have provided it."""
        provider = self._providers[kind].get(name)
        if provider is None:
            raise PluginUnavailable(self._missing(kind, name))
        return provider

    def takes_wasm(self, executor: str) -> bool:
        """Whether the modules of this executor must be WebAssembly, as those of `auto` must."""
        provider = self.executors.get(executor)
        return provider is None or provider.takes_wasm

    def owner(self, kind: str, name: str) -> str | None:
        """The title of the plugin that has taken this name (each of a builder's suffixes is one)."""
        return self._owners.get((kind, name))

    def _missing(self, kind: str, name: str) -> str:
        message = f"no installed plugin provides {_singular(kind)} {name!r}"
        suspects = [info for info in self._failures if _may_provide(info, kind, name)]
        near = _nearest(name, self._providers[kind])
        if suspects:
            named = ", ".join(f"{info.title}: {info.error}" for info in suspects)
            message += f", but one that failed to load may: {named}"
        if near:
            return f"{message}; did you mean {near!r}?"
        known = ", ".join(self._providers[kind]) or "none"
        return f"{message}; there is {known}; `runner plugins list` shows all plugins"

    def _add(self, title: str, kind: str, providers: Iterable[Provider[Any]]) -> None:
        for provider in providers:
            self._providers[kind][provider.name] = provider
            self._owners.update({(kind, name): title for name in provider.name.split(",")})


def _may_provide(failed: PluginInfo, kind: str, name: str) -> bool:
    if failed.hooks and f"{PREFIX}{kind}" not in failed.hooks:
        return False
    return not failed.provides or name in failed.provides.get(kind, ())


def _singular(kind: str) -> str:
    return f"{kind[:-3]}y" if kind.endswith("ies") else kind.removesuffix("s")


def load(
    *, no_plugins: bool = False, only: Sequence[str] | None = None, notify: Callable[[str], None] | None = None
) -> Plugins:
    """Load the plugins that are installed: those shipped with runner first, then others by name.

    `no_plugins` leaves out all that are not shipped; `only` all but those named (None: what the
    environment variable RUNNER_PLUGINS names, comma-separated; unset, all). Never raises for a
    broken plugin: it is among the `failures`. `notify` is told what a life-cycle hook raises, once
    a plugin and hook; without it, stderr is.
    """
    if only is None and ONLY_VARIABLE in os.environ:
        only = [name.strip() for name in os.environ[ONLY_VARIABLE].split(",") if name.strip()]
    loader = _Loader(notify or _tell)
    missing = dict.fromkeys(only or ())
    for info, entry_point in _installed():
        if info.is_shipped or (not no_plugins and (only is None or info.name in only)):
            loader.add(info, entry_point.load)
        missing.pop(info.name, None)
    if not no_plugins:
        for name in missing:
            loader.add_missing(name)
    return loader.finish()


def _installed() -> list[tuple[PluginInfo, entry_points.EntryPoint]]:
    found = [
        (PluginInfo(name=point.name, distribution=point.distribution, version=point.version, module=point.value), point)
        for point in entry_points.find(hookspecs.PROJECT)
    ]
    return sorted(found, key=lambda pair: (not pair[0].is_shipped, pair[0].name, pair[0].distribution))


def _nearest(name: str, known: Iterable[str]) -> str | None:
    import difflib  # only needed for a message

    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _tell(message: str) -> None:
    print(message, file=sys.stderr)


class _Refused(Exception):
    """This plugin cannot be used; the message says why. Never leaves this module."""


class _Loader:
    """Takes up one plugin after the other. Everything is checked before anything is taken up."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._providers = Providers(hook.removeprefix(PREFIX) for hook in _catalogue_hooks())
        self._infos: list[PluginInfo] = []
        self._notify = notify

    def add(self, info: PluginInfo, import_plugin: Callable[[], hookspecs.Plugin]) -> None:
        """Load one plugin and take up what it provides, or record why not."""
        plugin = None
        try:
            self._check_name(info)
            with _isolated(f"importing {info.module} failed"):
                plugin = import_plugin()
            implementations = self._register(info, plugin)
            info = replace(info, hooks=tuple(implementations))
            _check_hooks(implementations)
            offers = _offers(implementations)
            info = replace(info, provides={kind: tuple(p.name for p in given) for kind, given in offers.items()})
            self._check_free(offers)
        except _Refused as refused:
            if self._manager.get_plugin(info.name) is plugin is not None:
                self._manager.unregister(plugin)
            self._fail(info, str(refused))
            return
        self._infos.append(info)
        for kind, given in offers.items():
            self._providers._add(info.title, kind, given)

    def add_missing(self, name: str) -> None:
        """Record that a plugin which was asked for is not installed."""
        near = _nearest(name, [info.name for info in self._infos])
        hint = f"did you mean {near!r}?" if near else "install the package that brings it"
        info = PluginInfo(name=name, distribution="", version="", module="")
        self._fail(info, f"{ONLY_VARIABLE} names it, but it is not installed; {hint}")

    def finish(self) -> Plugins:
        """The result, with the life-cycle hooks tied up."""
        return Plugins(
            catalogue=self._providers,
            infos=tuple(self._infos),
            before_invocation=self._moment("runner_before_invocation", ("function", "context")),
            after_invocation=self._moment("runner_after_invocation", ("function", "context", "result")),
        )

    def _fail(self, info: PluginInfo, error: str) -> None:
        failed = replace(info, error=error)
        self._infos.append(failed)
        self._providers._failures.append(failed)

    def _check_name(self, info: PluginInfo) -> None:
        for other in self._infos:
            if other.name == info.name:
                raise _Refused(f"the name {info.name!r} is taken by plugin {other.title}")

    def _check_free(self, offers: Mapping[str, Sequence[Provider[Any]]]) -> None:
        for kind, given in offers.items():
            for name in [name for provider in given for name in provider.name.split(",")]:
                owner = self._providers.owner(kind, name)
                if owner is not None:
                    raise _Refused(f"{_singular(kind)} {name!r} is already provided by plugin {owner}")

    def _register(self, info: PluginInfo, plugin: hookspecs.Plugin) -> dict[str, pluggy.HookImpl]:
        """The plugin's implementations by hook, in the order of the hooks."""
        _check_marked(plugin)
        with _isolated("its hooks do not fit"):
            self._manager.register(plugin, name=info.name)
        found = {
            caller.name: implementation
            for caller in self._manager.get_hookcallers(plugin) or ()
            for implementation in caller.get_hookimpls()
            if implementation.plugin is plugin
        }
        order = (*hookspecs.spec_names(), *sorted(found))
        return {name: found[name] for name in order if name in found}

    def _moment(self, hook: str, facts: tuple[str, ...]) -> Callable[..., None] | None:
        implementations = list(reversed(getattr(self._manager.hook, hook).get_hookimpls()))
        told: set[str] = set()

        def call_all(*values: Any) -> None:
            given = dict(zip(facts, values, strict=True))
            for implementation in implementations:
                try:
                    implementation.function(*[given[name] for name in implementation.argnames])
                except Exception as error:  # foreign code: it must not disturb the run
                    if implementation.plugin_name not in told:
                        told.add(implementation.plugin_name)
                        self._notify(f"plugin {implementation.plugin_name}: {hook} failed: {_describe(error)}")

        return call_all if implementations else None


# Checks of one plugin


@contextmanager
def _isolated(doing: str) -> Iterator[None]:
    """Turns whatever foreign code raises into a refusal."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise _Refused(f"{doing}: {_describe(error)}") from error


def _describe(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _catalogue_hooks() -> list[str]:
    """The hooks that return providers: those whose specification says so."""
    returns = {name: str(getattr(hookspecs, name).__annotations__["return"]) for name in hookspecs.spec_names()}
    return [name for name, annotation in returns.items() if "Provider[" in annotation]


def _check_marked(plugin: hookspecs.Plugin) -> None:
    """A function that is named like a hook must be marked as one: else it would never be called."""
    for name in dir(plugin):
        member = getattr(plugin, name, None)
        if name.startswith(PREFIX) and callable(member) and not hasattr(member, f"{hookspecs.PROJECT}_impl"):
            raise _Refused(f"{name} is not marked with @hookimpl and would never be called")


def _check_hooks(implementations: Mapping[str, pluggy.HookImpl]) -> None:
    for name, implementation in implementations.items():
        if name not in hookspecs.spec_names():
            near = _nearest(name, hookspecs.spec_names())
            hint = f"did you mean {near!r}?" if near else f"hooks are {', '.join(hookspecs.spec_names())}"
            raise _Refused(f"there is no hook {name!r}; {hint}")
        if implementation.wrapper or implementation.hookwrapper:
            raise _Refused(f"{name} is a wrapper; hooks of runner cannot be wrapped")


def _offers(implementations: Mapping[str, pluggy.HookImpl]) -> dict[str, list[Provider[Any]]]:
    """The providers of one plugin by kind."""
    offers = {}
    for hook in _catalogue_hooks():
        if hook in implementations:
            with _isolated(f"hook {hook} failed"):
                given = implementations[hook].function()
            offers[hook.removeprefix(PREFIX)] = _checked(hook, given)
    return offers


def _checked(hook: str, given: Any) -> list[Provider[Any]]:
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise _Refused(f"{hook} returned {type(given).__name__}; a list of Provider is expected")
    taken: set[str] = set()
    for position, provider in enumerate(given):
        if not isinstance(provider, Provider):
            raise _Refused(f"{hook} returned a list with {type(provider).__name__} at {position}; Provider is expected")
        names = provider.name.split(",") if isinstance(provider.name, str) else [""]
        if not all(names):
            raise _Refused(f"{hook} returned a provider named {provider.name!r}; a name is expected")
        twice = taken.intersection(names)
        if twice:
            raise _Refused(f"{hook} returned {min(twice)!r} twice")
        taken.update(names)
    return list(given)
