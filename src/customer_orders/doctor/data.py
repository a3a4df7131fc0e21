"""Checks of the database, and of what is in it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, or_, select, text
from sqlalchemy.orm import Session

from customer_orders import db, grants, migrations

# Each defines tables; where the application does not start, nobody else has imported them.
from customer_orders.api import idempotency as _idempotency  # noqa: F401
from customer_orders.audit import models as _audit  # noqa: F401
from customer_orders.auth.models import User
from customer_orders.checks import Skipped
from customer_orders.doctor.deployment import UTF_8, Deployment
from customer_orders.interfaces import CheckFailed
from customer_orders.notifications import channels
from customer_orders.notifications.models import Notification, Status
from customer_orders.orders import models as _orders  # noqa: F401

# Seconds of the database's answer from which on people notice it with each request.
SLOW = 0.25
# Seconds by which clocks may differ, and by which tokens begin to be refused.
DRIFT, TOO_FAR = 2, 30
# Seconds for which a message may be due; or so many looks for what is.
OVERDUE, LOOKS = 60, 10
UPGRADE = "Run `customer-orders db upgrade`."
GRANTS = (
    "Have the tables' owner run what `customer-orders db grants` prints, and sign in as that role (see docs/audit.md)."
)


def check_database(deployment: Deployment) -> str:
    """It answers, and soon."""
    with deployment.session() as session:
        began = time.monotonic()
        session.execute(text("SELECT 1"))
        seconds = time.monotonic() - began
        postgresql = _is_postgresql(session)
        version = session.scalar(text("SHOW server_version" if postgresql else "SELECT sqlite_version()"))
    said = f"{'PostgreSQL' if postgresql else 'SQLite'} {version} answers in {seconds * 1000:.1f} ms."
    if seconds > SLOW:
        raise CheckFailed(said, remedy="Each request waits for that several times: have it nearer.", warning=True)
    return said


def check_migrations(deployment: Deployment) -> str:
    """Its schema is that of this code, or of a newer one while that is rolled out."""
    with deployment.session() as session:
        schema = migrations.state(session.connection())
    head = migrations.head()
    if schema.behind:
        said = f"The schema is at {schema.revision or 'nothing'}, and this version needs {head}."
        raise CheckFailed(said, remedy=UPGRADE)
    if schema.ahead:
        said = f"The schema is at {schema.revision}, of a newer version than this one, which needs {head}."
        raise CheckFailed(said, remedy="Have all processes run the newer version.", warning=True)
    return f"The schema is at {head}."


def check_role(deployment: Deployment) -> str:
    """The PostgreSQL role may do all that is needed, and cannot change the audit trail."""
    with deployment.session() as session:
        _only_postgresql(session, "SQLite has no roles.")
        role = session.scalar(text("SELECT current_user"))
        lacking = [f"{what} ON {name}" for name, what, may in _privileges(session, grants.needed()) if not may]
        for name in grants.sequences():
            if not session.scalar(select(func.has_sequence_privilege(grants.quoted(name), "USAGE"))):
                lacking.append(f"USAGE ON SEQUENCE {name}")
        odd = [f"{what} ON {name}" for name, what, may in _privileges(session, grants.withheld()) if may]
    if lacking:
        raise CheckFailed(f"The role {role} lacks {', '.join(lacking)}.", remedy=GRANTS)
    if odd:
        raise CheckFailed(
            f"The role {role} could change the audit trail: it may {', '.join(odd)}.", remedy=GRANTS, warning=True
        )
    return f"The role {role} has what it needs, and cannot change the audit trail."


def _privileges(session: Session, wanted: dict[str, tuple[str, ...]]) -> list[tuple[str, str, bool]]:
    """Whether our role has each of the privileges, as owner, superuser or member of others too."""
    told = []
    for name, privileges in wanted.items():
        for privilege in privileges:
            may = session.scalar(select(func.has_table_privilege(grants.quoted(name), privilege).is_(True)))
            told.append((name, privilege, bool(may)))
    return told


def check_encoding(deployment: Deployment) -> str:
    """Every name can be written."""
    with deployment.session() as session:
        _only_postgresql(session, "SQLite keeps UTF-8, whatever happens.")
        encoding = session.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise CheckFailed(
            f"The database keeps {encoding}: names and texts with other characters are refused.",
            remedy=UTF_8,
        )
    return "The database keeps UTF-8."


def check_clock(deployment: Deployment) -> str:
    """This machine and the database have the same time: tokens are made by one, and leases by the other."""
    with deployment.session() as session:
        _only_postgresql(session, "SQLite has this machine's clock.")
        # so that connecting is not counted
        db.now(session)
        before = datetime.now(UTC)
        told = db.now(session)
        apart = (told - before - (datetime.now(UTC) - before) / 2).total_seconds()
    said = f"The database's clock is {abs(apart):.1f} seconds {'ahead of' if apart > 0 else 'behind'} this machine's."
    if abs(apart) > DRIFT:
        remedy = "Have both synchronize their clocks (NTP)."
        raise CheckFailed(said, remedy=remedy, warning=abs(apart) <= TOO_FAR)
    return said


def check_access(deployment: Deployment) -> str:
    """Somebody can sign in, and somebody is an admin."""
    auth = deployment.section("auth")
    # those of plugins; what is built in signs nobody in
    providers = sorted(deployment.plugins.identity_providers)
    if not providers and not deployment.starts:
        deployment.blocked("settings", "What signs people in cannot be known.", "Mend the settings.")
    if not providers:
        said = "Nobody can sign in: no plugin that is switched on is an identity provider."
        raise CheckFailed(said, remedy="Name one in plugins, such as google.", warning=True)
    admins = list(auth.admins)
    if not admins and auth.default_role != "admin":
        with deployment.session() as session:
            wanted = (User.granted_role == "admin", User.disabled.is_(False))
            if not session.scalar(select(func.count()).select_from(User).where(*wanted)):
                raise CheckFailed(
                    "Nobody is an admin.",
                    remedy="Name somebody in auth.admins, or run `customer-orders user grant`.",
                    warning=True,
                )
    return f"People sign in with {', '.join(providers)}."


def check_outbox(deployment: Deployment) -> str:
    """Messages that are due get sent: somebody delivers, and the provider works."""
    settings = deployment.section("notifications")
    if settings.sms is None:
        return "notifications.sms is blank: no SMS is sent."
    with deployment.session() as session:
        now = db.now(session)
        grace = timedelta(seconds=max(OVERDUE, LOOKS * settings.poll_interval))
        late = or_(
            (Notification.status == Status.QUEUED) & (Notification.next_attempt_at < now - grace),
            (Notification.status == Status.SENDING) & (Notification.lease_expires_at < now - grace),
        )
        count = session.scalar(select(func.count()).select_from(Notification).where(late)) or 0
        channel = channels.paused(session, settings.sms)
    if channel is not None:
        raise CheckFailed(
            f"{settings.sms} does not work: {channel.reason}. {count} messages wait, and none is lost.",
            remedy=f"Mend it; see the checks {settings.sms}.*. They go on by themselves.",
        )
    if count:
        deliver = {
            "worker": "Run `customer-orders worker -c INI`.",
            "embedded": "Is the server running? If so, restart it: `/readyz` tells whether its dispatcher lives.",
        }
        said = f"{count} messages have been due for more than {grace.total_seconds():.0f} seconds: nobody delivers."
        raise CheckFailed(
            said, remedy=deliver.get(settings.dispatcher, f"Start what {settings.dispatcher} delivers with.")
        )
    return "No message is overdue."


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def _only_postgresql(session: Session, otherwise: str) -> None:
    if not _is_postgresql(session):
        raise Skipped(otherwise)
