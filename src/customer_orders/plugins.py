"""Plugins: entry points switched on by ``plugins = a b`` in the INI, and the directives they may call.

The contract is in :mod:`customer_orders.interfaces`. Merely installed, a plugin is inert.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import colander
from pyramid.exceptions import ConfigurationError
from zope.interface.exceptions import Invalid as InterfaceViolation
from zope.interface.verify import verifyObject

from customer_orders.checks import NAME, Checking
from customer_orders.interfaces import Check, IDeliveryReports, IDispatcher, IIdentityProvider, INotifier
from customer_orders.settings import InvalidSettings, Section, SettingError, misspelt_sections

GROUP = "customer_orders.plugins"

# Names that are the core's own: its dispatchers, registered after the plugins (see notifications/dispatch.py), and
# the provider under which the command line keeps the users it makes (see auth/services.py).
BUILT_IN = {"dispatchers": ("embedded", "worker"), "identity_providers": ("cli",), "notifiers": ()}


@dataclass
class Registered:
    """What is registered in one application, by kind and name, and which plugin did what."""

    notifiers: dict[str, Any] = field(default_factory=dict)
    identity_providers: dict[str, Any] = field(default_factory=dict)
    dispatchers: dict[str, Any] = field(default_factory=dict)
    readiness_checks: dict[str, Checking] = field(default_factory=dict)
    doctor_checks: dict[str, Checking] = field(default_factory=dict)
    by_plugin: dict[str, list[str]] = field(default_factory=dict)
    including: str | None = None

    def note(self, what: str) -> None:
        """Remember what the plugin that is being included did; the core's own doings are not noted."""
        if self.including is not None:
            self.by_plugin[self.including].append(what)


def installed() -> dict[str, list[EntryPoint]]:
    """Every plugin that is installed, by name; more than one of a name cannot be switched on."""
    found: dict[str, list[EntryPoint]] = defaultdict(list)
    for point in entry_points(group=GROUP):
        found[point.name].append(point)
    return dict(found)


def distribution(point: EntryPoint) -> str:
    """The name and version of the distribution that brings a plugin."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "?"


def _adder(kind: str, label: str, interface: Any, *optional: Any) -> Any:
    """The directive for a kind. ``optional``: interfaces that what is offered may say it meets, too."""

    def add(config: Any, name: str, offered: Any) -> None:
        for claimed in (interface, *(each for each in optional if each.providedBy(offered))):
            try:
                verifyObject(claimed, offered)
            except InterfaceViolation as error:
                raise ConfigurationError(f"{label} {name!r} does not meet {claimed.__name__}: {error}") from error
        plugin = config.registry.plugins.including
        if plugin is not None and name in BUILT_IN[kind]:
            raise ConfigurationError(f"the plugin {plugin!r} claims the {label} {name!r}, which is the core's own")

        def register() -> None:
            getattr(config.registry.plugins, kind)[name] = offered

        # Two plugins that claim one name: Pyramid reports the conflict and names both.
        config.action((label, name), register)
        config.registry.plugins.note(f"{label} {name}")

    return add


def _add_check(config: Any, label: str, checks: dict[str, Checking], name: str, check: Check, *, online: bool) -> None:
    """Register a check under the plugin's name and its own; the core's have their own alone."""
    plugin = config.registry.plugins.including
    if not NAME.fullmatch(name) or not callable(check):
        raise ConfigurationError(f"{label} {name!r}: give a name of small letters, digits and _, and a callable")
    full = name if plugin is None else f"{plugin}.{name}"
    config.action((label, full), lambda: checks.setdefault(full, Checking(full, check, online=online)))
    config.registry.plugins.note(f"{label} {full}")


def _add_readiness_check(config: Any, name: str, check: Check) -> None:
    _add_check(config, "readiness check", config.registry.plugins.readiness_checks, name, check, online=False)


def _add_doctor_check(config: Any, name: str, check: Check, *, online: bool = True) -> None:
    _add_check(config, "doctor check", config.registry.plugins.doctor_checks, name, check, online=online)


def _plugin_settings(config: Any, name: str, schema: type[colander.SchemaNode]) -> Section:
    config.action(("settings", name), None)
    section: Section = config.registry.sections.add(name, schema)
    return section


def _load(name: str, found: dict[str, list[EntryPoint]]) -> Any:
    """The ``includeme`` of the plugin called ``name``. Raises ConfigurationError if there is not just one."""
    if name not in found:
        close = difflib.get_close_matches(name, found, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        known = ", ".join(sorted(found)) or "none"
        raise ConfigurationError(f"there is no such plugin.{hint} Installed: {known}.")
    first, *others = found[name]
    if others:
        raise ConfigurationError(f"is offered by {' and by '.join(map(distribution, found[name]))}; uninstall one.")
    try:
        return first.load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"cannot be loaded: {error}") from error


def _include(config: Any, name: str, found: dict[str, list[EntryPoint]]) -> bool:
    """Include one plugin; whether it could be. What is wrong is remembered, to be told with all else."""
    registered = config.registry.plugins
    try:
        includeme = _load(name, found)
        registered.by_plugin[name], registered.including = [], name
        config.include(includeme)
    except InvalidSettings:
        # its section's errors, which are remembered already
        return False
    except ConfigurationError as error:
        config.registry.sections.errors.append(SettingError("plugins", f"{name}: {error}"))
        return False
    finally:
        registered.including = None
    return True


def _check_references(config: Any) -> None:
    """A setting that names something registered names something that is."""
    sections = config.registry.sections
    for setting in sections.valid:
        kind = getattr(setting.node, "refers_to", None)
        if kind is None or setting.value is None:
            continue
        known = sorted({*getattr(config.registry.plugins, kind), *BUILT_IN[kind]})
        if setting.value not in known:
            sections.errors.append(
                SettingError(
                    setting.key,
                    f"nothing is called {setting.value!r}. Registered: {', '.join(known) or 'none'}. "
                    "A plugin registers it once it is named in plugins =.",
                )
            )


def includeme(config: Any) -> None:
    """Add the directives, include what ``plugins`` names, then tell every wrong setting at once."""
    registry = config.registry
    registry.plugins = Registered()
    config.add_directive("plugin_settings", _plugin_settings, action_wrap=False)
    config.add_directive("add_notifier", _adder("notifiers", "notifier", INotifier, IDeliveryReports))
    config.add_directive("add_identity_provider", _adder("identity_providers", "identity provider", IIdentityProvider))
    config.add_directive("add_dispatcher", _adder("dispatchers", "dispatcher", IDispatcher))
    config.add_directive("add_readiness_check", _add_readiness_check)
    config.add_directive("add_doctor_check", _add_doctor_check)

    sections = registry.sections
    found = installed()
    enabled = dict.fromkeys(sections[""].plugins) if "" in sections else {}
    included = [_include(config, name, found) for name in enabled]
    config.commit()
    # what a plugin registers cannot be known if its settings are wrong
    if all(included) and "" in sections:
        _check_references(config)
    sections.errors += misspelt_sections(sections.ini, {*sections.names, *found})
    if sections.errors:
        raise InvalidSettings(sections.errors)
