"""``customer-orders``: what an operator does from a shell. Every command takes the deployment's INI by ``-c``."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

import click
import plaster

from customer_orders import migrations, production, retention
from customer_orders.cli import access, database, doctor
from customer_orders.cli.base import with_registry
from customer_orders.metrics.exposing import exposed
from customer_orders.notifications.wakeup import Listener
from customer_orders.notifications.worker import Worker
from customer_orders.origin import SYSTEM, Origin
from customer_orders.plugins import distribution, installed
from customer_orders.settings import section

log = logging.getLogger(__name__)


@click.group()
@click.version_option(package_name="customer-orders")
def main() -> None:
    """Customer Orders: the order book of a merchant."""


for group in (access.token, access.user, access.keys, access.machines, database.db):
    main.add_command(group)
main.add_command(doctor.examine)


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
def serve(registry: Any) -> None:
    """Serve, in production: as many processes and threads as the settings server.* say, until SIGTERM.

    Then nothing new is taken in, and what is under way is finished, for server.drain_seconds at most.
    """
    # nothing of this application's is shared with the processes that serve
    registry.database.engine.dispose()
    settings = section(registry, "server")
    try:
        with exposed(registry, shared=True) as metrics:
            production.serve(click.get_current_context().params["config"], settings, metrics)
    except OSError as error:
        said = f"cannot serve at {' '.join(settings.listen)}: {error}"
        raise click.ClickException(f"{said}. Change server.listen, or the variable SERVER_LISTEN.") from None


@main.command()
@with_registry
@click.option("--dry-run", is_flag=True, help="Only count what would go.")
def prune(registry: Any, dry_run: bool) -> None:
    """Do away with what need not be kept any more: see the settings retention.*.

    Orders, sums and customers stay. It can be run at any time, beside everything else, and ended at any time.
    """

    def tell(done: retention.Pruned) -> None:
        kept = "past their time" if done.days is None else f"kept for {done.days} days"
        if not done.over:
            click.echo(f"{done.rule.what}: {done.count} so far", err=True)
        elif done.rule.setting and done.days is None:
            click.echo(f"{done.rule.what}: kept for ever (retention.{done.rule.setting} is blank)")
        else:
            click.echo(f"{done.rule.what}, {kept}: {done.count} {'would go' if dry_run else 'gone'}")

    retention.prune(registry.database, section(registry, "retention"), tell, dry_run=dry_run)


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
        schema = migrations.state(session.connection())
    if schema.behind:
        at = f"at {schema.revision}, and this version needs {migrations.head()}" if schema.revision else "empty"
        raise click.ClickException(f"The database is {at}; run `customer-orders db upgrade` first.")
    # nobody's hand: what it does from here on
    registry.database.origin = Origin(SYSTEM)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    delivering = Worker(registry.outbox, concurrency or settings.concurrency, settings.poll_interval)
    listener = Listener(registry.database, delivering.wake)
    with exposed(registry):
        delivering.start()
        listener.start()
        _say("The worker is delivering.")
        stopping.wait()
        listener.stop()
        delivering.stop()
    registry.tracing.stop()


def _say(words: str) -> None:
    """Tell how a process fares that runs on: in its log, or on stderr if the INI configures none."""
    if "loggers" in plaster.get_sections(click.get_current_context().params["config"]):
        log.info(words)
    else:
        click.echo(words, err=True)
