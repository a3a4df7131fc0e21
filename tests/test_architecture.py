"""What holds the tree together."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from serving import BIN, ROOT

SOURCES = [ROOT / "src" / "customer_orders", *(ROOT / "plugins").glob("*/src/*")]
FILES = [path for source in SOURCES for path in source.rglob("*.py")]
FEATURES = ["audit", "auth", "customers", "notifications", "orders"]
# A feature is a folder, and its files always have these names.
STANDARD = {"__init__.py", "models.py", "schemas.py", "services.py"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_point_one_way():
    linter = BIN / "lint-imports"
    if not linter.exists():
        pytest.skip("import-linter is not installed; `make lint` installs and runs it")
    done = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_is_a_folder_whose_files_have_the_standard_names(feature):
    found = {path.name for path in (SOURCES[0] / feature).glob("*.py")}
    assert found >= STANDARD
    # whoever answers requests has a context for them
    assert ("views.py" in found) == ("resources.py" in found)


def test_every_folder_with_models_is_a_feature_that_is_looked_at_here():
    assert sorted(path.parent.name for path in SOURCES[0].rglob("models.py")) == FEATURES


def test_no_file_is_a_drawer_for_whatever_fits_nowhere():
    drawers = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
    assert [name(path) for path in FILES if path.name in drawers] == []


def test_every_file_can_be_read_in_one_sitting():
    assert len(FILES) > 40
    long = {name(path): lines for path in FILES if (lines := len(path.read_text().splitlines())) > 400}
    assert long == {}


def test_every_module_says_what_it_is():
    assert [name(path) for path in FILES if not path.read_text().startswith('"""')] == []


def test_no_code_asks_whether_it_is_in_development_or_production():
    asking = ('== "development"', '== "production"', "DEBUG")
    assert [name(path) for path in FILES if any(word in path.read_text() for word in asking)] == []
