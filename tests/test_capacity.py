"""The bench of docs/scaling.md runs to its end, so that its numbers can be had anew. What they are is for people."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from serving import ROOT, unmeasured

PAGE = ROOT / "docs" / "scaling.md"


@pytest.mark.processes
def test_the_smallest_bench_measures_everything_that_the_page_tells() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benches" / "capacity"), "--smallest"],
        env={**unmeasured(), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    tables = re.findall(r"(?m)^### (\w+)", done.stdout)
    # what is not on every machine says so
    absent = {name for name in ("PgBouncer", "Celery") if name not in tables}
    assert len(re.findall(r"(?m)^There is no ", done.stdout)) == len(absent)
    assert set(tables) >= {"Bytes", "Gigabytes", "Time", "Requests", "Replica", "Messages", "Partitions"}
    # every line of a table holds as many figures as its head has columns
    for block in re.findall(r"(?m)(?:^\|.*\n)+", done.stdout):
        lines = block.splitlines()
        assert len(lines) > 2
        assert {line.count("|") for line in lines} == {lines[0].count("|")}
