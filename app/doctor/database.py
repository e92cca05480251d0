"""The database: whether it answers, what it is, its schema, room for connections, the queue, indexes, services."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from app.db import migrate
from app.db.requirements import lacks
from app.db.statements import statement
from app.doctor.findings import Finding, fail, ok, warn
from app.domain.inference.services import stored
from app.domain.security.keys import hash_key
from app.domain.security.root_key import root_key_file
from app.inference.registry import Inference
from app.settings import Settings

# Beside the pool: the worker's connections, two index builds, the one that notes its heartbeat.
BESIDE_THE_POOL = 8
WAITING_S = 300


def findings(url: str, settings: Settings, available: Inference) -> Iterator[Finding]:
    shown = sa.make_url(url).render_as_string(hide_password=True)
    try:
        with _connect(url) as conn:
            facts = conn.execute(statement("server_facts")).one()
            yield ok("database", f"{shown} answers")
            yield from _versions(facts)
            yield from _connections(facts, settings)
            yield from _locks(facts, settings)
            yield from _direct(facts, settings)
            if (current := migrate.revision(conn)) == migrate.head():
                yield ok("schema", f"at revision {current}")
                yield from _contents(conn, settings, available)
            else:
                yield _outdated(current)
                yield from services(available, {})
    except DBAPIError as error:
        todo = "Start it, or correct DATABASE_URL; its log says who may connect (pg_hba.conf)."
        yield fail("database", f"{shown} does not answer: {_first(error)}", todo)
        yield from services(available, {})


def _connect(url: str) -> sa.Connection:
    target = sa.make_url(url).set(drivername="postgresql+psycopg")
    options = {"connect_timeout": 10, "application_name": "pgretrieve-doctor", "prepare_threshold": None}
    engine = sa.create_engine(target, poolclass=sa.pool.NullPool, connect_args=options)
    # The doctor changes nothing, and the server sees to that.
    return engine.connect().execution_options(postgresql_readonly=True)


def _first(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0]


def _versions(facts: Any) -> Iterator[Finding]:
    if problems := lacks(facts.server, facts.installed, facts.available):
        yield from (Finding("versions", "fail", problem) for problem in problems)
        return
    vector = facts.installed or f"{facts.available} (not installed in this database yet)"
    yield ok("versions", f"PostgreSQL {facts.server}, pgvector {vector}")


def _connections(facts: Any, settings: Settings) -> Iterator[Finding]:
    check, needed = "connections", settings.pool_size + BESIDE_THE_POOL
    limits = [n for n in (facts.connections, facts.role_limit, facts.database_limit) if n is not None]
    room = min(limits)
    text = f"one service takes up to {needed} (PGRETRIEVE_POOL_SIZE and {BESIDE_THE_POOL} beside it)"
    if needed > room:
        todo = f"Set PGRETRIEVE_POOL_SIZE to {max(room - BESIDE_THE_POOL, 1)} or less, or raise max_connections."
        yield fail(check, f"{text}, the database gives {room}", todo)
    elif needed > room - facts.others:
        todo = "Lower PGRETRIEVE_POOL_SIZE, raise max_connections, or put a pooler before the database."
        yield warn(check, f"{text}, the database gives {room}, of which others have {facts.others} now", todo)
    else:
        yield ok(check, f"{text}, the database gives {room}")


def _locks(facts: Any, settings: Settings) -> Iterator[Finding]:
    """Autovacuum lets go of a table for who has waited so long; who gives up before waits for its end in vain."""
    waits, needed = settings.lock_timeout_ms, facts.deadlock_timeout_ms
    if waits <= needed:
        message = f"PGRETRIEVE_LOCK_TIMEOUT_MS ({waits}) is not above PostgreSQL's deadlock_timeout ({needed} ms)"
        todo = f"Set it to {needed + needed // 2} or so, or promotions are refused during autovacuum."
        yield warn("locks", message, todo)


def _direct(facts: Any, settings: Settings) -> Iterator[Finding]:
    """The worker and migrations must come to the same database."""
    if settings.direct_database_url is None or settings.database_url is None:
        return
    check = "direct database"
    try:
        with _connect(settings.direct_database_url.get_secret_value()) as conn:
            direct = conn.execute(statement("server_facts")).one()
    except DBAPIError as error:
        yield fail(check, f"does not answer: {_first(error)}", "Correct DIRECT_DATABASE_URL.")
        return
    if (direct.database, direct.started) == (facts.database, facts.started):
        yield ok(check, "is the same database")
    else:
        message = "DIRECT_DATABASE_URL leads to another database than DATABASE_URL: jobs would never be found"
        yield fail(check, message, "Correct one of them.")


def _outdated(current: str | None) -> Finding:
    head = migrate.head()
    if current is not None and not migrate.knows(current):
        message = f"at revision {current}, which this installation does not know (it has {head})"
        return fail("schema", message, "Install the newer pgretrieve that migrated it.")
    return fail(
        "schema", f"at revision {current or 'none'}, this installation needs {head}", "Run `pgretrieve migrate`."
    )


def _contents(conn: sa.Connection, settings: Settings, available: Inference) -> Iterator[Finding]:
    """What the catalog tells; each for itself, so that one failure hides no other."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "root key": lambda: _root_key(conn, settings),
        "jobs": lambda: _jobs(conn),
        "indexes": lambda: _indexes(conn),
        "inference": lambda: services(_with_stored(conn, available), _in_use(conn)),
    }
    for check, look in checks.items():
        try:
            yield from look()
        except DBAPIError as error:
            conn.rollback()
            todo = "Give this role the rights on the schemas pgretrieve and pgretrieve_queue (it should own them)."
            yield fail(check, f"could not be looked at: {_first(error)}", todo)


def _root_key(conn: sa.Connection, settings: Settings) -> Iterator[Finding]:
    file = root_key_file(settings.data_dir)
    in_force = conn.execute(statement("root_key_in_force")).scalar_one_or_none()
    if in_force is None or settings.root_key is not None or not file.is_file():
        return
    if bytes(in_force) != hash_key(file.read_text(encoding="ascii").strip()):
        message = f"the database knows another root key than {file}: a service with another one started since"
        todo = "Start all services of a database with the same PGRETRIEVE_ROOT_KEY; the last one to start wins."
        yield warn("root key", message, todo)


def _jobs(conn: sa.Connection) -> Iterator[Finding]:
    state = conn.execute(statement("queue_state")).one()
    found = []
    if state.waiting and (not state.workers or (state.oldest_s or 0) > WAITING_S):
        message = f"{state.waiting} wait, the oldest for {state.oldest_s or 0:.0f} s; {state.workers} workers live"
        todo = "Start `pgretrieve serve` with its worker." if not state.workers else "See the log of the worker."
        found.append(warn("jobs", message, todo))
    if state.stalled:
        message = f"{state.stalled} began with a worker that has died"
        found.append(warn("jobs", message, "Start `pgretrieve serve`: its worker takes them up."))
    if state.failed:
        latest = ", ".join(
            f"{job.task_name} {job.id}" + (f" of {job.namespace_id}" if job.namespace_id else "")
            for job in conn.execute(statement("failed_jobs"))
        )
        todo = "The log of the worker has each one's error."
        found.append(warn("jobs", f"{state.failed} failed for good; the latest: {latest}", todo))
    yield from found or [ok("jobs", f"{state.waiting} wait, none failed, {state.workers} workers live")]


def _indexes(conn: sa.Connection) -> Iterator[Finding]:
    found = []
    for index in conn.execute(statement("troubled_indexes")):
        name = f"{index.name!r} of {index.namespace_id!r}"
        path = f"POST /v1/namespaces/{index.namespace_id}/ensure-indexes"
        todo = (
            f"Searches of it are exact, and slow on many documents. {path} has the worker build it; its log says more."
        )
        if index.awaited:
            found.append(ok("indexes", f"{name} is being built, or will be"))
        elif index.state == "ready":
            message = f"{name} is ready in the catalog, but missing or invalid in the database: searches scan the table"
            found.append(fail("indexes", message, todo))
        elif index.state == "failed":
            found.append(warn("indexes", f"{name} could not be built", todo))
        else:
            found.append(warn("indexes", f"{name} is not built, and no job will do it", todo))
    yield from found or [ok("indexes", "every vector index is ready and valid")]


def _with_stored(conn: sa.Connection, available: Inference) -> Inference:
    """Those that were made over the API, beside those of the installation."""
    available.keep_stored(stored(row).definition for row in conn.execute(statement("list_services")).mappings())
    return available


def _in_use(conn: sa.Connection) -> dict[str, list[str]]:
    """The services that namespaces are mapped to, with those namespaces."""
    return {row.name: row.namespaces for row in conn.execute(statement("services_in_use"))}


def services(available: Inference, in_use: Mapping[str, list[str]]) -> Iterator[Finding]:
    """Every service, whether it can be used on this server; one that cannot fails only where somebody needs it."""
    for name in available.names():
        service = available.get(name)
        reason = service.unavailable() if service else None
        users = in_use.get(name, [])
        if reason is None:
            yield ok("inference", f"{name} is available")
        elif users:
            message = f"{name} is not available, and {_listed(users)} need it"
            yield fail("inference", message, reason)
        else:
            yield Finding("inference", "ok", f"{name} is not available, and no namespace needs it", reason)
    for name, users in in_use.items():
        if name not in available.names():
            message = f"{_listed(users)} are mapped to {name}, which this server does not have"
            yield fail("inference", message, "Install the version or the extra that brings it.")


def _listed(namespaces: list[str]) -> str:
    shown = ", ".join(namespaces[:3]) + (f" and {len(namespaces) - 3} more" if len(namespaces) > 3 else "")
    return f"the namespaces {shown}"
