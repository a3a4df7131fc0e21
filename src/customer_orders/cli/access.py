"""Who may call: access tokens, the staff, the key ring, and API keys."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click

from customer_orders import db
from customer_orders.api.fields import MAX_ID
from customer_orders.auth import api_keys, sessions
from customer_orders.auth import services as auth
from customer_orders.auth.policy import ROLES
from customer_orders.cli.base import with_registry
from customer_orders.events import Audited, announce
from customer_orders.sections.keys import new_key


@click.group()
def token() -> None:
    """Access tokens."""


def _address(_context: Any, _option: Any, value: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", value) or len(value) > 254 or not value.isprintable():
        raise click.BadParameter(f"{value!r} is not an e-mail address.")
    return value


def _label(_context: Any, _option: Any, value: str) -> str:
    if not value.strip() or len(value) > 255 or not value.isprintable():
        raise click.BadParameter("A name has 1 to 255 printable characters.")
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


@click.group()
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


@user.command("sign-out")
@with_registry
@click.argument("who")
def sign_out_user(registry: Any, who: str) -> None:
    """End all sessions of the user WHO (id or e-mail), at once. They may sign in again."""
    with registry.database.transaction() as session:
        found = auth.find_user(session, who)
        ended = sessions.end_sessions(session, found.id)
        click.echo(f"{ended} sessions of {found.email} (user {found.id}) were ended.")


@click.group()
def keys() -> None:
    """The key ring: the keys that sign access tokens."""


@keys.command("new")
def make_key() -> None:
    """Print a new key for jwt.private_key, as kid:key, and nothing else on stdout.

    To replace a key, put the new one behind it everywhere; then before it; and once the last access token of the old
    one has expired (jwt.expiration), leave that out.
    """
    made = new_key()
    click.echo(f"{made.kid}:{made.secret}")


@keys.command("list")
@with_registry
def list_signing_keys(registry: Any) -> None:
    """List the keys of jwt.private_key: kid, bytes, and what each is for. The keys themselves are not shown."""
    for number, key in enumerate(registry.access_tokens.ring):
        used = "verifies" if number else "signs and verifies"
        click.echo(f"{key.kid}\t{len(key.secret.encode())}\t{used}")


@click.group("api-keys")
def machines() -> None:
    """API keys, for machines."""


@machines.command("new")
@with_registry
@click.option("--name", required=True, callback=_label, help="What it is for.")
@click.option("--role", required=True, type=click.Choice(list(ROLES)), help="What it permits.")
@click.option("--days", type=click.IntRange(1, 36500), help="Days for which it is good; for ever, unless told.")
def make_api_key(registry: Any, name: str, role: str, days: int | None) -> None:
    """Print a new API key, and nothing else on stdout. It cannot be shown again."""
    with registry.database.transaction() as session:
        expires_at = None if days is None else db.now(session) + timedelta(days=days)
        _, shown = api_keys.create(session, name, role, expires_at=expires_at)
    click.echo(shown)


@machines.command("list")
@with_registry
def list_api_keys(registry: Any) -> None:
    """List API keys: id, name, role, state, and when each was last used."""
    with registry.database.transaction(writes=False) as session:
        now = db.now(session)
        for found in api_keys.list_keys(session):
            expired = found.expires_at is not None and found.expires_at <= now
            state = "revoked" if found.revoked_at else "expired" if expired else "active"
            used = f"{found.last_used_at:%Y-%m-%d %H:%M} UTC" if found.last_used_at else "never"
            click.echo(f"{found.id}\t{found.name}\t{found.role}\t{state}\t{used}")


@machines.command("revoke")
@with_registry
@click.argument("key_id", metavar="ID", type=click.IntRange(1, MAX_ID))
def revoke_api_key(registry: Any, key_id: int) -> None:
    """End the API key ID, at once and for good."""
    with registry.database.transaction() as session:
        found = api_keys.revoke(session, key_id)
        click.echo(f"API key {found.id} ({found.name}) is revoked.")
