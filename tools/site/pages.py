"""The pages of the site: those of docs/, what they link to elsewhere in the repository, and what is made of the code.

A page of docs/ is read in the repository too, so its links go to files. Those that lead out of docs/ come along: other
pages as pages, a folder as its README, source files as listings. The repository's README is not among them: the site
has a front page of its own, and a link to the one leads to the other.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath

import operations
import problem_types
from application import ROOT

DOCS = ROOT / "docs"
STYLE = Path(__file__).with_name("site.css")
FRONT = PurePosixPath("index.md")
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"(?ms)(^ *```.*?^ *```$)")
STRAY = re.compile(r"(?m)^(?:\d+\.|[*-]) .*\n(?: +\S.*\n)*\n(?: {1,3}| {5,7})\S.*")
LEXERS = {
    ".py": "python",
    ".ini": "ini",
    ".cfg": "ini",
    ".yml": "yaml",
    ".yaml": "yaml",
    ".toml": "toml",
    ".sh": "bash",
}


class Misplaced(Exception):
    """A page that would not come out on the site as it does in the repository."""


def place(file: Path) -> PurePosixPath:
    """Where a file of the repository goes on the site."""
    if file.is_relative_to(DOCS):
        return PurePosixPath(file.relative_to(DOCS))
    inside = PurePosixPath(file.relative_to(ROOT))
    if inside == PurePosixPath("README.md"):
        return FRONT
    if inside.name == "README.md":
        return inside.parent.with_suffix(".md")
    if inside.suffix == ".md":
        return inside
    # what begins with a dot is no page to Zensical
    return PurePosixPath("source", *(part.lstrip(".") for part in inside.parts[:-1]), f"{inside.name.lstrip('.')}.md")


def stage(folder: Path) -> None:
    """Write all pages below an empty folder. Raises :class:`Misplaced`."""
    waiting = [file for file in sorted(DOCS.rglob("*")) if file.is_file()]
    done = {ROOT / "README.md"}
    while waiting:
        file = waiting.pop()
        if file in done:
            continue
        done.add(file)
        target = folder / place(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".md":
            text, linked = _page(file)
            target.write_text(text)
            waiting += linked
        elif file.is_relative_to(DOCS):
            shutil.copyfile(file, target)
        else:
            target.write_text(_listing(file))
    shutil.copy(STYLE, folder)
    for where, text in (*operations.pages(), *problem_types.pages()):
        target = folder / where
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def _page(file: Path) -> tuple[str, list[Path]]:
    """A page as it is on the site, and the files that it leads to."""
    linked: list[Path] = []

    def led(link: re.Match[str]) -> str:
        path, anchor = link[1], link[2] or ""
        target = (file.parent / path).resolve()
        if target.is_dir():
            target /= "README.md"
        if not target.is_file():
            raise Misplaced(f"{file.relative_to(ROOT)} links to {path}, and there is no such file")
        if place(target) == FRONT and anchor:
            raise Misplaced(
                f"{file.relative_to(ROOT)} links to {path}{anchor}; the front page of the site has no such part"
            )
        linked.append(target)
        return os.path.relpath(place(target), place(file).parent) + (anchor if target.suffix == ".md" else "")

    # code is left as it is
    parts = FENCE.split(file.read_text())
    if lost := STRAY.search("\n".join(parts[::2])):
        raise Misplaced(
            f"{file.relative_to(ROOT)}: what goes on below an item of a list stands four spaces in, and code there in "
            f"a fence, or the site takes it for something of its own; look at {lost[0].partition(chr(10))[0]!r}"
        )
    return "".join(part if number % 2 else LINK.sub(led, part) for number, part in enumerate(parts)), linked


def _listing(file: Path) -> str:
    return f"# {file.relative_to(ROOT)}\n\n`````{LEXERS.get(file.suffix, 'text')}\n{file.read_text()}\n`````\n"
