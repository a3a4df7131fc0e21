"""Metrics of several processes that serve together: each writes its own into a folder, and the first one adds them up.

The files are prometheus_client's own, mapped into memory: what a process wrote before it was killed is in them. What
the dead have counted goes on counting, in one file for all of them; their gauges go.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import values
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# In the place of a process in the name of a file: all that ended.
DEAD = "dead"


def share(folder: str) -> None:
    """Have this process write the metrics of the applications that it is about to make into the folder."""
    os.environ[VARIABLE] = folder
    values.ValueClass = values.MultiProcessValue()


class Shared:
    """What all processes that share a folder have counted."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._files = MultiProcessCollector(None, folder)

    def collect(self) -> Iterable[Metric]:
        """For Prometheus; one scrape at a time."""
        self._bury()
        return self._files.collect()

    def _bury(self) -> None:
        """Move what the dead have counted into one file, or there would be files without end."""
        for file in self.folder.glob("*.db"):
            kind, _, process = file.stem.rpartition("_")
            if process == DEAD or _lives(int(process)):
                continue
            # one that died while it made its file has counted nothing
            if not kind.startswith("gauge_") and file.stat().st_size:
                total = MmapedDict(str(self.folder / f"{kind}_{DEAD}.db"))
                for key, value, _timestamp, _at in MmapedDict.read_all_values_from_file(str(file)):
                    total.write_value(key, total.read_value(key)[0] + value, 0)
                total.close()
            file.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # somebody else's by now
        return False
    return True
