"""What a release has to be, before anything of it is published.

``release.py check v1.2.0`` ends with an error unless the tag, the core, every plugin and CHANGELOG.md agree on the
version; otherwise it prints the version. ``release.py notes 1.2.0`` prints what the changelog says of it.
"""

from __future__ import annotations

import configparser
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TAG = re.compile(r"v(\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?)")


class NotReady(Exception):
    """What keeps this from being a release, a sentence a line."""


def section(changelog: str, version: str) -> tuple[str, str]:
    """The heading and the text of a version in the changelog."""
    for part in re.split(r"(?m)^## ", changelog)[1:]:
        heading, _, text = part.partition("\n")
        if heading.split(",")[0].strip() == version:
            return heading, text.strip()
    raise NotReady(f"CHANGELOG.md has no section '## {version}, DATE'.")


def check(root: Path, tag: str) -> str:
    """The version that this tag releases, after everything that has one was compared."""
    matched = TAG.fullmatch(tag)
    if matched is None:
        raise NotReady(f"The tag '{tag}' is not v and a version, such as v1.2.0 or v1.2.0rc1.")
    version = matched[1]
    problems = []
    for path in [root / "setup.cfg", *sorted(root.glob("plugins/*/setup.cfg"))]:
        metadata = configparser.ConfigParser()
        metadata.read(path)
        found = metadata["metadata"]["version"]
        if found != version:
            problems.append(f"{path.relative_to(root)} says version = {found}, and the tag {tag}.")
    try:
        heading, text = section((root / "CHANGELOG.md").read_text(), version)
    except NotReady as missing:
        problems.append(str(missing))
    else:
        if not re.fullmatch(re.escape(version) + r", \d{4}-\d{2}-\d{2}", heading):
            problems.append(f"CHANGELOG.md calls it '## {heading}': write '## {version}, ' and the day, as 2026-01-31.")
        if not text:
            problems.append(f"CHANGELOG.md says nothing of {version}.")
    if problems:
        raise NotReady("\n".join(problems))
    return version


def main(arguments: list[str]) -> int:
    """Run one of the two commands; 1 and the reasons on stderr where it is no release."""
    try:
        match arguments:
            case ["check", tag]:
                print(check(ROOT, tag))
            case ["notes", version]:
                print(section((ROOT / "CHANGELOG.md").read_text(), version)[1])
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except NotReady as reasons:
        print(reasons, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
