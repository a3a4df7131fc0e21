"""A deployment as far as it can be read: its INI, its settings, its database, what its plugins registered."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.paster import get_appsettings
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from customer_orders import include
from customer_orders.checks import Checking, Skipped
from customer_orders.db import Database, lacks_schema
from customer_orders.inifile import UNREADABLE, why_unreadable
from customer_orders.interfaces import CheckFailed
from customer_orders.plugins import Registered
from customer_orders.settings import Section, Sections, Setting

UTF_8 = "Make one with ENCODING 'UTF8', and restore a dump into it."
log = logging.getLogger(__name__)

# Shorter words are no secrets, and to hide them would hide what is said.
SHORTEST = 8


class Deployment:
    """What an INI and the environment make, read once.

    ``unreadable``: what is wrong with the file; ``wrong``: why the application does not start. None where all is well.
    What is missing of the rest is empty.

    :param config: path of the INI.
    """

    def __init__(self, config: str) -> None:
        self.config = Path(config)
        self.ini: Mapping[str, str] = {}
        self.unreadable: str | None = None
        self.wrong: Exception | None = None
        self.sections = Sections({}, {})
        self.plugins = Registered()
        self._told: set[str] = set()
        self._lock = Lock()
        self._database: Database | None = None
        self._read()

    def _read(self) -> None:
        try:
            settings = get_appsettings(str(self.config))
        except OSError as error:
            self.unreadable = str(error)
            return
        except UNREADABLE as error:
            self.unreadable = why_unreadable(error)
            return
        defaults = settings.global_conf
        self.ini = {key: value for key, value in settings.items() if key not in defaults}
        configurator = Configurator(settings={**defaults, **settings})
        try:
            include(configurator)
            configurator.make_wsgi_app()
        except ConfigurationError as error:
            self.wrong = error
        except Exception as error:
            # a plugin can raise anything: that is for the log
            log.exception("the application does not start")
            self.wrong = error
        registry: Any = configurator.registry
        # what comes first, the sections, cannot fail; what comes after may not have been reached
        self.sections = registry.sections
        self.plugins = getattr(registry, "plugins", self.plugins)

    @property
    def starts(self) -> bool:
        """Whether the application starts with it."""
        return self.unreadable is None and self.wrong is None

    @property
    def plugin_checks(self) -> list[Checking]:
        """The doctor checks that plugins registered, by name."""
        return [checking for _, checking in sorted(self.plugins.doctor_checks.items())]

    def section(self, name: str) -> Section:
        """A section of settings. If any of it is wrong, :meth:`blocked` tells it."""
        self.need_ini()
        if name not in self.sections:
            errors = [str(error) for error in self.sections.errors if error.key.startswith(f"{name}.")]
            said = f"The settings {name}.* cannot be read."
            self.blocked("settings", "\n".join([said, *errors]), "Mend them.")
        return self.sections[name]

    def need_ini(self) -> None:
        """Be told by :meth:`blocked` if there is no INI to speak of."""
        if self.unreadable is not None:
            remedy = "Begin with a copy of production.ini or development.ini."
            self.blocked("ini", f"{self.config} cannot be read: {self.unreadable}", remedy)

    def blocked(self, cause: str, reason: str, remedy: str) -> NoReturn:
        """Say why nothing can be checked: by ``CheckFailed``, and of the same cause from then on by ``Skipped``.

        So each cause is told once, and once at least, whichever checks are asked for.
        """
        with self._lock:
            first = cause not in self._told
            self._told.add(cause)
        if first:
            raise CheckFailed(reason, remedy=remedy)
        raise Skipped(f"It needs what has failed before: {cause}.")

    def secret_settings(self) -> Iterator[tuple[Setting, tuple[str, ...]]]:
        """Each setting that holds secrets, and these."""
        for setting in self.sections.valid:
            words = setting.value if isinstance(setting.value, tuple) else (setting.value,)
            if hasattr(setting.node, "secrets_in"):
                found = tuple(word for value in words if value for word in setting.node.secrets_in(value))
            else:
                found = words if getattr(setting.node, "secret", False) else ()
            kept = tuple(str(word) for word in found if word)
            if kept:
                yield setting, kept

    def secrets(self) -> list[str]:
        """Every secret, longest first, so that no part of one is left when another is hidden."""
        found = {part for _, words in self.secret_settings() for word in words for part in (word, *word.split())}
        # a key of a ring without its kid
        found |= {word.partition(":")[2] for word in found}
        return sorted((word for word in found if len(word) >= SHORTEST), key=len, reverse=True)

    # -- the database -------------------------------------------------------------------------------------------------

    def database(self) -> Database:
        """The database, with connections of our own."""
        settings = self.section("sqlalchemy")
        with self._lock:
            if self._database is None:
                self._database = Database(settings)
            return self._database

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that reads. What keeps it from being one is told by :meth:`blocked`."""
        database = self.database()
        if database.engine.name == "sqlite" and not Path(database.url.database or "").is_file():
            # it would be made
            remedy = "Make it with `customer-orders db upgrade`, or mend sqlalchemy.url."
            self.blocked("database", "The file of the database is not there.", remedy)
        with database.session(writes=False) as session:
            try:
                session.connection()
            except DBAPIError as error:
                remedy = "Is it running, and is sqlalchemy.url right?"
                self.blocked("database", f"The database cannot be reached: {_sentence(error)}", remedy)
            except TypeError:
                # the driver hands out bytes, which no SQLAlchemy can connect with
                self.blocked("database", "The database keeps SQL_ASCII: texts of nobody knows which encoding.", UTF_8)
            try:
                yield session
            except DBAPIError as error:
                if lacks_schema(error):
                    raise Skipped("The database lacks tables; see the check migrations.") from None
                said = f"The database refuses to tell: {_sentence(error)}"
                raise CheckFailed(said, remedy="See the check database_role.") from None

    def close(self) -> None:
        """Close what was opened."""
        if self._database is not None:
            self._database.engine.dispose()


def _sentence(error: DBAPIError) -> str:
    """What the driver says, in one line. It names hosts and roles, and no password."""
    return " ".join(str(error.orig).split())


def reason_of(wrong: Exception) -> str:
    """Why the application does not start, as it says itself."""
    if isinstance(wrong, ConfigurationError):
        return str(wrong)
    return f"The application does not start: it raised {type(wrong).__name__}, and stderr tells where."
