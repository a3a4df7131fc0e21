"""What every command has: the application of an INI, and errors as sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from pyramid.exceptions import ConfigurationError
from pyramid.paster import get_app, get_appsettings, setup_logging
from sqlalchemy.exc import DBAPIError

from customer_orders.errors import DomainError
from customer_orders.inifile import UNREADABLE, why_unreadable
from customer_orders.origin import OPERATOR, Origin

config_option = click.option(
    "-c",
    "--config",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    envvar="CUSTOMER_ORDERS_CONFIG",
    help="INI file of the deployment (variable CUSTOMER_ORDERS_CONFIG).",
)


def _registry(config: str) -> Any:
    """The application of an INI, without serving it."""
    try:
        setup_logging(config)
        # the file itself, before a line of anybody's code runs
        get_appsettings(config)
    except UNREADABLE as error:
        raise click.ClickException(f"{config}: {why_unreadable(error)}") from None
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
        except ConfigurationError as error:
            raise click.ClickException(str(error)) from None
        except DBAPIError as error:
            said = f"The database says: {error.orig}"
            raise click.ClickException(f"{said}\nIs it there, and brought up to date by `db upgrade`?") from None
        finally:
            registry.database.engine.dispose()

    run.__doc__ = command.__doc__
    run.__name__ = command.__name__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    return config_option(run)
