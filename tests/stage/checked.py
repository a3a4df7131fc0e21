"""A plugin for tests, installed as any other: it has a check of each kind, which do as a test tells them."""

from __future__ import annotations

from collections.abc import Callable


class Script:
    """What the checks do: by name, a function; those without one find nothing to say."""

    def __init__(self) -> None:
        self.does: dict[str, Callable[[], object]] = {}

    def check(self, name: str) -> Callable[[], object]:
        return lambda: self.does.get(name, lambda: None)()


SCRIPT = Script()


def includeme(config):
    config.add_readiness_check("thread", SCRIPT.check("thread"))
    config.add_readiness_check("queue", SCRIPT.check("queue"))
    config.add_doctor_check("account", SCRIPT.check("account"))
    config.add_doctor_check("folder", SCRIPT.check("folder"), online=False)
