"""What migrations do to PostgreSQL, statement by statement, as a linter that knows its locks sees it (squawk)."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event

from customer_orders import migrations
from serving import BIN

# Rules that are none of ours, each with its reason.
NOT_OURS = {
    "require-lock-timeout": "whoever runs the migrations sets it for all of them: see locks.py",
    "require-statement-timeout": "a backfill may take its time, since it keeps nobody waiting",
    "prefer-text-field": "lengths are promises of the API, and raising one rewrites nothing",
    "prefer-bigint-over-int": "ids are bigint; what counts attempts and segments need not be",
    "prefer-identity": "bigserial it is since 0001, and db grants gives the right to its sequences",
}
# What the migrations of before the first release do: no database that others used had rows for them.
BEFORE_ANY_RELEASE = {
    "0002": {"require-concurrent-index-creation"},
    "0003": {"require-concurrent-index-creation", "adding-foreign-key-constraint", "constraint-missing-not-valid"},
    "0004": {"require-concurrent-index-creation", "require-concurrent-index-deletion"},
    "0005": {"require-concurrent-index-creation", "adding-foreign-key-constraint", "constraint-missing-not-valid"},
    # CHANGELOG.md says to stop older processes first
    "0007": {"ban-drop-not-null"},
}


def lint(*files: Path) -> dict[str, dict[str, str]]:
    """What the linter finds, by migration and rule."""
    options = ["--reporter=json", "--pg-version=14", "--assume-in-transaction", f"--exclude={','.join(NOT_OURS)}"]
    command = [str(BIN / "squawk"), *options, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, dict[str, str]] = {}
    for one in json.loads(done.stdout):
        found.setdefault(Path(one["file"]).stem, {})[one["rule_name"]] = one["message"]
    return found


@pytest.fixture(scope="module")
def files(postgresql, tmp_path_factory):
    """A file with the statements of each migration that define something, in their order."""
    folder = tmp_path_factory.mktemp("sql")
    engine = create_engine(postgresql("linted"))
    said: list[str] = []

    def note(_connection, _cursor, statement, *_):
        if re.match(r"\s*(CREATE|ALTER|DROP|TRUNCATE|REINDEX)\b", statement):
            said.append(f"{statement.strip()};")

    event.listen(engine, "before_cursor_execute", note)
    script = ScriptDirectory.from_config(migrations._config())
    made = []
    for one in reversed(list(script.walk_revisions())):
        said.clear()
        migrations.upgrade(engine, one.revision)
        made.append(folder / f"{one.revision}.sql")
        # what Alembic does for itself is none of it
        made[-1].write_text("\n".join(line for line in said if "alembic_version" not in line))
    engine.dispose()
    return made


def test_no_migration_keeps_others_waiting_or_breaks_the_release_before(files):
    assert len(files) >= 7
    found = lint(*files)
    new = {
        one: {rule: told for rule, told in rules.items() if rule not in BEFORE_ANY_RELEASE.get(one, ())}
        for one, rules in found.items()
    }
    assert {one: rules for one, rules in new.items() if rules} == {}, "see docs/migrations.md for another way"
    # no exception that is none any more
    assert {one: set(found.get(one, ())) for one in BEFORE_ANY_RELEASE} == BEFORE_ANY_RELEASE


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("ALTER TABLE customers RENAME COLUMN username TO name", "renaming-column"),
        ("ALTER TABLE customers DROP COLUMN language", "ban-drop-column"),
        ("ALTER TABLE customers ADD COLUMN tier integer NOT NULL", "adding-required-field"),
        ("CREATE INDEX ix_customers_language ON customers (language)", "require-concurrent-index-creation"),
        ("ALTER TABLE orders ALTER COLUMN item TYPE varchar(64)", "changing-column-type"),
    ],
)
def test_what_does_is_found(tmp_path, statement, rule):
    (tmp_path / "next.sql").write_text(f"{statement};")
    assert rule in lint(tmp_path / "next.sql")["next"]
