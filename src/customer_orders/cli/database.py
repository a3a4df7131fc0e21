"""The database: its schema, and who may do what in it."""

from __future__ import annotations

from typing import Any

import click
from alembic.util import CommandError

from customer_orders import grants, migrations, restoring
from customer_orders.auth import api_keys
from customer_orders.cli.base import with_registry
from customer_orders.db import make_folder
from customer_orders.migrations.locks import Patience
from customer_orders.settings import section

# What `db check` exits with, apart from what errors do.
UPGRADE_NEEDED = 3


def _tell(said: str) -> None:
    click.echo(said, err=True)


@click.group()
def db() -> None:
    """The database."""


@db.command()
@with_registry
@click.option("--or-newer", is_flag=True, help="Be content with a database that a newer version migrated.")
def upgrade(registry: Any, or_newer: bool) -> None:
    """Bring the database's schema to what this version needs, while others use it.

    On PostgreSQL, whoever holds a lock that it needs is waited for by the settings migrations.*, and named. If it fails
    the database is as it was.
    """
    settings = section(registry, "migrations")
    patience = Patience(settings.lock_timeout, settings.attempts)
    try:
        make_folder(registry.database)
        if or_newer and (state := _state(registry)).ahead:
            click.echo(f"{_newer(state)} Nothing has to be done.", err=True)
            return
        migrations.upgrade(registry.database.engine, patience=patience, tell=_tell)
    except OSError as error:
        raise click.ClickException(f"The folder of the database cannot be made: {error}") from None
    except RuntimeError as error:
        # a migration refuses
        raise click.ClickException(f"The database cannot be upgraded: {error}.") from None
    except CommandError as error:
        said = f"The database cannot be upgraded: {error}."
        raise click.ClickException(f"{said}\nWas it upgraded by a newer version of customer-orders?") from None
    click.echo(f"The database is at {migrations.head()}.", err=True)


@db.command()
@with_registry
def check(registry: Any) -> None:
    """Tell whether `db upgrade` is needed: exits with 3 if so, with 0 if not; changes nothing.

    A database that a newer version migrated needs none.
    """
    state = _state(registry)
    at = f"The database is at {state.revision or 'nothing'}"
    if state.behind:
        click.echo(f"{at}, and this version needs {migrations.head()}: run `customer-orders db upgrade`.")
        raise click.exceptions.Exit(UPGRADE_NEEDED)
    click.echo(_newer(state) if state.ahead else f"{at}.")


def _state(registry: Any) -> migrations.State:
    with registry.database.transaction(writes=False) as session:
        return migrations.state(session.connection())


def _newer(state: migrations.State) -> str:
    return f"The database is at {state.revision}, which is newer than this version ({migrations.head()})."


@db.command("restored")
@with_registry
@click.option(
    "--skip-ids",
    type=click.IntRange(0, 10**12),
    default=100_000,
    show_default=True,
    help="Ids of each table to leave out: more than were given since the backup was taken.",
)
@click.option("--beside-others", is_flag=True, help="Go on although others are connected, none of them the service.")
@click.confirmation_option(prompt="Was a backup put back into this database, and does nothing run on it yet?")
def say_restored(registry: Any, skip_ids: int, beside_others: bool) -> None:
    """After restoring a backup, before anything runs on it: have nothing sent twice, and no id given twice.

    What it has yet to send may have been sent since it was taken, and becomes unknown (reason: restored). Everybody
    has to sign in again. Needs the role that owns the tables. See docs/backups.md, also for what is left to do by hand.
    """
    with registry.database.transaction() as session:
        settings = section(registry, "notifications")
        done = restoring.make_fit(session, settings, skip_ids=skip_ids, alone=not beside_others)
        keys = len(api_keys.list_keys(session))
    click.echo(f"Messages that may have been sent since the backup: {done.doubted}, unknown (restored) from now on")
    click.echo(f"Sessions that were ended: {done.signed_out}")
    click.echo(f"Ids of each table that are left out: {skip_ids}")
    if keys:
        click.echo(f"API keys: {keys}. Whichever was revoked since the backup is good again: see `api-keys list`")


@db.command("grants")
@with_registry
@click.option("--role", required=True, help="The database's role that the application signs in with.")
@click.option("--apply", is_flag=True, help="Run the SQL instead, as the role of sqlalchemy.url.")
def print_grants(registry: Any, role: str, apply: bool) -> None:
    """Print SQL that gives a PostgreSQL role what the application needs and no more; the tables' owner runs it.

    That role can add to the audit trail and read it, and cannot change it. After each upgrade, run it again.
    """
    if registry.database.engine.name != "postgresql":
        raise click.ClickException("Only PostgreSQL has roles. On SQLite triggers keep the audit trail from changing.")
    if apply:
        # as it is: a role's name may have what a driver takes for a parameter
        with registry.database.engine.execution_options(no_parameters=True).begin() as connection:
            for statement in grants.statements(role):
                connection.exec_driver_sql(statement)
        click.echo(f"{role} may do what the application needs.", err=True)
        return
    for statement in grants.statements(role):
        click.echo(f"{statement};")
