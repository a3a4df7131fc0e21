"""``customer-orders``: what an operator does from a shell. Every command takes the deployment's INI by ``-c``."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable
from configparser import Error as ConfigParserError
from importlib.metadata import PackageNotFoundError
from typing import Any

import click
from alembic.util import CommandError
from pyramid.exceptions import ConfigurationError
from pyramid.paster import get_app, get_appsettings, setup_logging
from sqlalchemy.exc import DBAPIError

from customer_orders import grants, migrations
from customer_orders.auth import services as auth
from customer_orders.auth.policy import ROLES
from customer_orders.db import make_folder
from customer_orders.errors import DomainError
from customer_orders.events import Audited, announce
from customer_orders.notifications.wakeup import Listener
from customer_orders.notifications.worker import Worker
from customer_orders.origin import OPERATOR, SYSTEM, Origin
from customer_orders.plugins import distribution, installed
from customer_orders.settings import section


def _registry(config: str) -> Any:
    """The application of an INI, without serving it."""
    try:
        setup_logging(config)
        # the file itself, before a line of anybody's code runs
        get_appsettings(config)
    except (ConfigParserError, LookupError, PackageNotFoundError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{config}: {error}") from None
    try:
        return get_app(config).registry
    except ConfigurationError as error:
        raise click.ClickException(f"{config}: {error}") from None


def with_registry(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its ``-c INI`` and the application of it as first argument; errors become sentences."""

    def run(config: str, **options: Any) -> None:
        registry = _registry(config)
        registry.database.origin = Origin(OPERATOR)
        try:
            command(registry, **options)
        except DomainError as error:
            raise click.ClickException(error.detail) from None
        except DBAPIError as error:
            said = f"The database says: {error.orig}"
            raise click.ClickException(f"{said}\nIs it there, and brought up to date by `db upgrade`?") from None
        finally:
            registry.database.engine.dispose()

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    return click.option(
        "-c",
        "--config",
        required=True,
        type=click.Path(exists=True, dir_okay=False),
        envvar="CUSTOMER_ORDERS_CONFIG",
        help="INI file of the deployment (variable CUSTOMER_ORDERS_CONFIG).",
    )(run)


@click.group()
@click.version_option(package_name="customer-orders")
def main() -> None:
    """Customer Orders: the order book of a merchant."""


@main.group("db")
def database() -> None:
    """The database."""


@database.command()
@with_registry
def upgrade(registry: Any) -> None:
    """Bring the database's schema to what this version needs."""
    try:
        make_folder(registry.database)
        migrations.upgrade(registry.database.engine)
    except OSError as error:
        raise click.ClickException(f"The folder of the database cannot be made: {error}") from None
    except RuntimeError as error:
        # a migration refuses
        raise click.ClickException(f"The database cannot be upgraded: {error}.") from None
    except CommandError as error:
        said = f"The database cannot be upgraded: {error}."
        raise click.ClickException(f"{said}\nWas it upgraded by a newer version of customer-orders?") from None
    click.echo(f"The database is at {migrations.head()}.", err=True)


@database.command("grants")
@with_registry
@click.option("--role", required=True, help="The database's role that the application signs in with.")
def print_grants(registry: Any, role: str) -> None:
    """Print SQL that gives a PostgreSQL role what the application needs and no more; the tables' owner runs it.

    That role can add to the audit trail and read it, and cannot change it. After each upgrade, run it again.
    """
    if registry.database.engine.name != "postgresql":
        raise click.ClickException("Only PostgreSQL has roles. On SQLite triggers keep the audit trail from changing.")
    for statement in grants.statements(role):
        click.echo(f"{statement};")


@main.group()
def token() -> None:
    """Access tokens."""


def _address(_context: Any, _option: Any, value: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", value) or len(value) > 254 or not value.isprintable():
        raise click.BadParameter(f"{value!r} is not an e-mail address.")
    return value


@token.command("create")
@with_registry
@click.option("--email", required=True, callback=_address, help="Whom the token is for; made if need be.")
@click.option("--role", required=True, type=click.Choice(list(ROLES)), help="Role to grant them.")
def create_token(registry: Any, email: str, role: str) -> None:
    """Print an access token, and nothing else on stdout.

    The user is the command line's own for that address, apart from anyone who signs in with it.
    """
    with registry.database.transaction() as session:
        found = auth.local_user(session, email, role)
        if found.disabled:
            undo = f"`customer-orders user disable --undo {found.id}`"
            raise click.ClickException(f"{email} (user {found.id}) is disabled: no token of theirs works. See {undo}.")
        announce(session, Audited("user.token_created", found.id))
    click.echo(registry.access_tokens.create_token(str(found.id)))


@main.group()
def user() -> None:
    """The staff."""


@user.command("list")
@with_registry
def list_users(registry: Any) -> None:
    """List users: id, e-mail, role, where the role comes from, state, and who knows them (cli: this command line)."""
    with registry.database.transaction(writes=False) as session:
        for found in auth.list_users(session):
            origin = "granted" if found.granted_role else "by sign-in"
            known_by = ",".join(identity.provider for identity in found.identities)
            state = "disabled" if found.disabled else "active"
            click.echo(f"{found.id}\t{found.email}\t{found.effective_role or 'none'}\t{origin}\t{state}\t{known_by}")


@user.command("grant")
@with_registry
@click.argument("who")
@click.argument("role", type=click.Choice([*ROLES, "none"]))
def grant_role(registry: Any, who: str, role: str) -> None:
    """Give the user WHO (id or e-mail) a ROLE that wins over the settings'; none takes the grant back."""
    with registry.database.transaction() as session:
        found = auth.grant(session, who, None if role == "none" else role)
        click.echo(f"{found.email} (user {found.id}) is {found.effective_role or 'without a role'} now.")


@user.command("disable")
@with_registry
@click.argument("who")
@click.option("--undo", is_flag=True, help="Let the user in again.")
def disable_user(registry: Any, who: str, undo: bool) -> None:
    """Shut the user WHO (id or e-mail) out, at once."""
    with registry.database.transaction() as session:
        found = auth.disable(session, who, disabled=not undo)
        click.echo(f"{found.email} (user {found.id}) is {'disabled' if found.disabled else 'active'} now.")


@main.command("plugins")
@with_registry
def list_plugins(registry: Any) -> None:
    """List plugins: installed, enabled, and what each enabled one registered."""
    registered = registry.plugins.by_plugin
    for name, points in sorted(installed().items()):
        state = ", ".join(registered[name]) or "registers nothing" if name in registered else "not enabled"
        for point in points:
            click.echo(f"{name}\t{distribution(point)}\t{state}")


@main.command("settings")
@with_registry
def show_settings(registry: Any) -> None:
    """Show every setting, its value (secrets masked), and where it came from."""
    for _, found in sorted(registry.sections.items()):
        for setting in found:
            click.echo(f"{setting.key} = {setting.display()}\t[{setting.origin}]")


@main.command()
@with_registry
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    help="Messages sent at a time; notifications.concurrency unless told.",
)
def worker(registry: Any, concurrency: int | None) -> None:
    """Deliver messages until SIGTERM, as many processes as wanted: for notifications.dispatcher = worker.

    It finishes what is being sent, for 20 seconds at most, and gives back what was not begun.
    """
    settings = section(registry, "notifications")
    if settings.sms is None:
        raise click.ClickException("notifications.sms is blank, so there is nothing to deliver. Name a notifier.")
    with registry.database.transaction(writes=False) as session:
        if migrations.current(session.connection()) is None:
            raise click.ClickException("The database is empty; run `customer-orders db upgrade` first.")
    # nobody's hand: what it does from here on
    registry.database.origin = Origin(SYSTEM)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    delivering = Worker(registry.outbox, concurrency or settings.concurrency, settings.poll_interval)
    listener = Listener(registry.database, delivering.wake)
    delivering.start()
    listener.start()
    click.echo("The worker is delivering.", err=True)
    stopping.wait()
    listener.stop()
    delivering.stop()
