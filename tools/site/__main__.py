"""Everything that zensical.toml builds the site of: ``python tools/site``, which `make docs` runs.

Brings docs/configuration.md up to date, and writes all pages to a folder (build/docs unless told). With ``--check``,
the former is only looked at. With ``--built``, the site in that folder is looked at instead: a reader loads nothing
from elsewhere.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from pathlib import Path

import closed
import configuration
import pages
from application import ROOT


def main() -> str | None:
    """Do it; what is wrong, if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing in docs/")
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "docs", help="folder of the pages; replaced")
    parser.add_argument("--built", type=Path, help="folder of a site that is built")
    given = parser.parse_args()
    if given.built:
        return "\n".join(closed.foreign(given.built)) or None
    # of an application that serves nobody
    logging.disable()
    text = configuration.page()
    if not given.check:
        configuration.PAGE.write_text(text)
    elif not configuration.PAGE.is_file() or configuration.PAGE.read_text() != text:
        return "docs/configuration.md is not what the settings' schemas say; `make docs` brings it up to date"
    shutil.rmtree(given.into, ignore_errors=True)
    try:
        pages.stage(given.into)
    except pages.Misplaced as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
