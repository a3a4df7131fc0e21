"""The scripts that the workflows of .github/ run, as modules."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from serving import ROOT


def script(name: str) -> ModuleType:
    """Import .github/scripts/NAME.py, anew each time."""
    spec = importlib.util.spec_from_file_location(f"pipeline_{name}", ROOT / ".github" / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
