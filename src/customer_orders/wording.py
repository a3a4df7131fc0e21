"""The words of a message: what a template may speak of, how it is checked at start, and how it is compiled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment


@dataclass(frozen=True)
class OrderWords:
    """What a template may say of an order. ``amount_text``: as :func:`customer_orders.money.amount_text` writes it."""

    id: int
    item: str
    amount_text: str
    currency: str
    reference: str | None


@dataclass(frozen=True)
class CustomerWords:
    """What a template may say of a customer."""

    username: str
    reference: str | None


SAMPLES: dict[str, OrderWords | CustomerWords] = {
    "order": OrderWords(1, "Tea", "KES 100.00", "KES", "A-1"),
    "customer": CustomerWords("Jane", "C-1"),
}
NAMES = [f"{name}.{part}" for name, words in SAMPLES.items() for part in asdict(words)]


def _environment() -> SandboxedEnvironment:
    # No autoescape: a text message is not HTML. And nobody is told «None».
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, finalize=lambda value: "" if value is None else value
    )
    # takes a part by a name that cannot be told from the template alone
    del environment.filters["attr"]
    return environment


def compiled(source: str) -> Template:
    """The template, in a sandbox, with nothing undefined passing silently. Its source was checked."""
    return _environment().from_string(source)


def fixed(source: str) -> str | None:
    """What a template that was checked always says; None if that depends on the order or the customer."""
    named = meta.find_undeclared_variables(_environment().parse(source))
    return None if named else compiled(source).render()


def check(source: str) -> None:
    """A Jinja2 template that names nothing it will not be given, in no branch of it, and that can be rendered.

    Raises ValueError with what is wrong with it.
    """
    environment = _environment()
    try:
        tree = environment.parse(source)
        if any(True for _ in meta.find_referenced_templates(tree)):
            raise TemplateSyntaxError("there is no other template to include", 1)
        template = environment.from_string(source)
    except TemplateSyntaxError as error:
        raise ValueError(f"is not a Jinja2 template: {error}") from None
    unknown = {name for name in meta.find_undeclared_variables(tree) if name not in SAMPLES}
    unknown |= {f"|{part.name}" for part in tree.find_all(nodes.Filter) if part.name not in environment.filters}
    unknown |= {f"is {part.name}" for part in tree.find_all(nodes.Test) if part.name not in environment.tests}
    unknown |= set(_unknown_parts(tree))
    if unknown:
        raise ValueError(f"names {', '.join(sorted(unknown))}, which is not there. Known: {', '.join(NAMES)}")
    unreferenced = {name: replace(words, reference=None) for name, words in SAMPLES.items()}
    for words, when in ((SAMPLES, ""), (unreferenced, " where there is no reference")):
        try:
            template.render(words)
        except Exception as error:  # noqa: BLE001 - a template can raise anything
            raise ValueError(f"cannot be rendered{when}: {error}") from None


def _unknown_parts(tree: nodes.Template) -> Iterator[str]:
    """What is not one of the facts, or is below one: they are text and numbers, which filters can change."""
    parts: list[Any] = list(tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Call)))
    yield from {_spelt(part) for part in parts}.difference(NAMES)
    whole = {id(part.node) for part in parts}
    for name in tree.find_all(nodes.Name):
        # without a part: an alias or a filter would take the parts out of sight
        if name.name in SAMPLES and id(name) not in whole:
            yield name.name


def _spelt(part: Any) -> str:
    """A part of a template, in words that its author will know again."""
    if isinstance(part, nodes.Name):
        return part.name
    if isinstance(part, nodes.Getattr):
        return f"{_spelt(part.node)}.{part.attr}"
    if isinstance(part, nodes.Getitem):
        return f"{_spelt(part.node)}" + (f".{part.arg.value}" if isinstance(part.arg, nodes.Const) else "[]")
    return f"{_spelt(part.node)}()" if isinstance(part, nodes.Call) else "(...)"
