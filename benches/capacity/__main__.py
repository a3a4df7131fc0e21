"""What a core can do, and what grows with the order book: ``make bench-capacity``; docs/scaling.md has the results.

Each part prints Markdown tables. Name some of them to run those only; ``--smallest`` shows that all of it works.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# the processes of this bench import from there too
sys.path[:0] = [str(ROOT / "tests" / "stage"), str(ROOT / "tests"), str(HERE.parent), str(HERE)]


def _run() -> None:
    import ground
    import growth
    import messages
    import partitions
    import pooler
    import replica
    import tasks
    import traffic
    from provider import answering

    # the book is filled first: everything else is measured on the full one
    parts = {
        "growth": growth.run,
        "traffic": traffic.run,
        "replica": replica.run,
        "pooler": pooler.run,
        "messages": messages.run,
        "tasks": tasks.run,
        "partitions": partitions.run,
    }
    parser = argparse.ArgumentParser(prog="benches/capacity", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {' '.join(parts)}; all unless told, and growth always")
    parser.add_argument("--smallest", action="store_true", help="as little of everything as there can be")
    parser.add_argument("--rows", type=int, nargs="+", help="orders at which times are taken (10000 100000 1000000)")
    parser.add_argument("--seconds", type=float, help="that each load lasts (6)")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(parts):
        parser.error(f"there is no {' '.join(sorted(unknown))}")
    sizes = ground.SMALLEST if given.smallest else ground.Sizes()
    changed = {name: value for name in ("rows", "seconds") if (value := getattr(given, name)) is not None}
    sizes = ground.sized(sizes, changed)
    began = time.perf_counter()
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{os.cpu_count()} cores, {_processor()}; Python {platform.python_version()}; load before: {load}")
    with answering(0.05) as provider, ground.ground(sizes, provider) as all_of_it:
        print(f"PostgreSQL {all_of_it.postgres.ask('SHOW server_version')}, as it comes")
        for name, measure in parts.items():
            if name == "growth" or not given.parts or name in given.parts:
                measure(all_of_it)
    print(f"\nAll of it took {time.perf_counter() - began:.0f} s.")


def _processor() -> str:
    """What the machine says that it is."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    _run()
