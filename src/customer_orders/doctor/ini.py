"""Checks of what is written: the INI, its settings, and the variables over them."""

from __future__ import annotations

import difflib
import os

from customer_orders.doctor.deployment import Deployment, reason_of
from customer_orders.interfaces import CheckFailed
from customer_orders.plugins import distribution, installed
from customer_orders.settings import variable

# What a key of Pyramid and of its add-ons begins with.
OTHERS = (
    "pyramid",
    "debug",
    "reload",
    "prevent",
    "default",
    "csrf",
    "exceptionresponse",
    "jinja2",
    "retry",
    "tm",
    "use",
)
# How like a setting's variable another has to be to count as misspelt.
ALIKE = 0.88


def check_file(deployment: Deployment) -> str:
    """The INI is one of ours."""
    deployment.need_ini()
    return f"{deployment.config} has {len(deployment.ini)} settings."


def check_settings(deployment: Deployment) -> str:
    """The application starts with them."""
    deployment.need_ini()
    if deployment.wrong is not None:
        deployment.blocked("settings", reason_of(deployment.wrong), "Mend them; until then it does not start.")
    found = installed()
    names = [f"{name} ({distribution(found[name][0])})" for name in sorted(deployment.plugins.by_plugin)]
    return f"The application starts, with {', '.join(names) or 'no plugins'}."


def check_unknown(deployment: Deployment) -> str:
    """Nothing is written that nobody reads. A key within a section of ours is an error anyway; this finds the rest."""
    deployment.need_ini()
    odd = [*_keys(deployment), *_variables(deployment)]
    if odd:
        raise CheckFailed("\n".join(odd), remedy="Correct the name, or take it out.", warning=True)
    return "All that is written is read."


def _keys(deployment: Deployment) -> list[str]:
    sections, found = deployment.sections, installed()
    odd = []
    for key in deployment.ini:
        head, _, _ = key.partition(".")
        if head in sections.names or head.partition("_")[0] in OTHERS:
            continue
        why = "the plugin is not switched on by plugins" if head in found else "nothing reads it"
        odd.append(f"{key} is in the INI, and {why}.")
    return odd


def _variables(deployment: Deployment) -> list[str]:
    sections = deployment.sections
    known = {variable(setting.key) for setting in sections.valid}
    known |= {variable(error.key) for error in sections.errors if error.known}
    prefixes = tuple(f"{variable(name)}_" for name in sections.names if name)
    odd = []
    for name in sorted(os.environ):
        word = name.removesuffix("_FILE")
        close = difflib.get_close_matches(word, known, 1, ALIKE) if name.startswith(prefixes) else []
        if close and not {word, name} & known:
            odd.append(f"The variable {name} is set, and nothing reads it. Did you mean {close[0]}?")
    return odd
