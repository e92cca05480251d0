"""pgretrieve doctor: looks at everything that the service needs, says what to do, and changes nothing."""

from collections.abc import Iterator

from app.db import embedded
from app.doctor import combinations, database, machine
from app.doctor.findings import Finding, ok, warn
from app.errors import PgretrieveError
from app.inference.registry import Inference
from app.settings import Settings


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, from the machine to the database."""
    yield from machine.findings(settings)
    yield from combinations.findings(settings)
    yield from _database(settings)


def _database(settings: Settings) -> Iterator[Finding]:
    services = Inference.from_settings(settings)
    if settings.database_url is not None:
        yield from database.findings(settings.database_url.get_secret_value(), settings, services)
        return
    try:
        url = embedded.running(settings.data_dir)
        exists = embedded.exists(settings.data_dir)
    except PgretrieveError as error:
        yield Finding("database", "fail", error.message)
        return
    if url is not None:
        yield from database.findings(url, settings, services)
    elif exists:
        message = f"the embedded PostgreSQL in {settings.data_dir} is not running, so it was not looked at"
        yield warn("database", message, "Start `pgretrieve serve`, and ask again.")
    else:
        yield ok("database", "none yet: the first `pgretrieve serve` makes an embedded PostgreSQL")
    if url is None:
        yield from database.services(services, {})
