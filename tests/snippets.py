"""The commands that documentation shows, run as they stand there.

On a page of docs/, a fence of the language ``bash`` is run, in one shell for the whole page. What it prints is compared
with the fence behind it, if that one's language is ``json``, ``http`` or ``text``: ``...`` stands for anything on its
line, and a line of nothing else for any number of lines. A fence of ``sh`` is not run; the comment before it says why:
``<!-- not run: it asks Google -->``.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"(?:<!-- not run: (?P<why>.+?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>[\w-]*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
OUTPUT = ("json", "http", "text")
SECONDS = 60


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page. ``line``: where it begins; ``why``: it is not run; ``title``: the file that it is."""

    page: Path
    line: int
    language: str
    text: str
    title: str | None
    why: str | None
    shows: str | None = None
    """What it prints, as the page shows it."""


def fences(page: Path) -> list[Fence]:
    """The fenced blocks of a page, in their order."""
    text = page.read_text()
    found = list(FENCE.finditer(text))
    told = []
    for number, match in enumerate(found):
        behind = found[number + 1] if number + 1 < len(found) else None
        shown = behind is not None and behind["language"] in OUTPUT and not text[match.end() : behind.start()].strip()
        told.append(
            Fence(
                page=page,
                line=text.count("\n", 0, match.start("language")) + 1,
                language=match["language"],
                text=match["text"],
                title=match["title"],
                why=match["why"],
                shows=behind["text"] if shown and behind is not None else None,
            )
        )
    return told


def fits(shown: str, printed: str) -> bool:
    """Whether a page may show ``shown`` for what was printed."""
    lines = [
        r"(?:[^\n]*\n)*?" if line.strip() == "..." else r"[^\n]*?".join(map(re.escape, line.split("..."))) + r"\n"
        for line in shown.rstrip("\n").split("\n")
    ]
    clean = "\n".join(line.rstrip() for line in printed.strip("\r\n").split("\n")) + "\n"
    return re.fullmatch("".join(lines), clean) is not None


class Shell:
    """One bash for all commands of a page: a variable that one sets the next one has."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # with all that it starts, to be ended together
            start_new_session=True,
        )

    def run(self, commands: str) -> tuple[str, int]:
        """What the commands print, and the exit status of the last; all are ended after a minute."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        mark = secrets.token_hex(16)
        late = threading.Timer(SECONDS, self.end)
        late.start()
        try:
            process.stdin.write(f"{commands}\nprintf '\\n%s %s\\n' {mark} $?\n")
            process.stdin.flush()
            printed: list[str] = []
            for line in process.stdout:
                if line.startswith(mark):
                    return "".join(printed).removesuffix("\n"), int(line.split()[1])
                printed.append(line)
        finally:
            late.cancel()
        raise AssertionError(f"the shell ended, or was ended after {SECONDS} s:\n{''.join(printed)}")

    def end(self) -> None:
        """End it, and what it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it, and wait."""
        self.end()
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def failures(page: Path, shell: Shell, address: str, shown_as: str) -> Iterator[str]:
    """Run a page; a text for each command that failed, or printed what the page does not show.

    :param address: host and port of the server to talk to, which the page calls ``shown_as``.
    """
    for fence in fences(page):
        if fence.language != "bash":
            continue
        printed, status = shell.run(fence.text.replace(shown_as, address))
        printed = printed.replace(address, shown_as)
        if status or "command not found" in printed:
            yield f"{page.name}:{fence.line}: exit status {status}\n{fence.text}\nprinted\n{printed}"
        elif fence.shows is None and f"{shown_as}/problems/" in printed:
            yield f"{page.name}:{fence.line}: a problem that the page does not show\n{fence.text}\nprinted\n{printed}"
        elif fence.shows is not None and not fits(fence.shows, printed):
            yield f"{page.name}:{fence.line}: shown\n{fence.shows}\nprinted\n{printed}"
