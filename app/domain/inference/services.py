"""Inference services made over the API: stored as definitions, known to every process before it embeds with them.

A service cannot be deleted while an index is mapped to it, so that a mapping which is in force always means the service
that it meant when it was made. Processes read the definitions when they prepare a retriever anew, and before a service
is called by its name: nothing is polled, and no answer comes from a definition that is gone.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import as_json, statement
from app.domain.runtime import Runtime
from app.domain.security import audit
from app.errors import Conflict, NotFound, Problems
from app.inference import providers
from app.inference.base import ServiceInfo
from app.inference.definition import Definition
from app.inference.registry import Inference
from app.settings import Settings

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
MAX_MODEL_CHARS = 200
MAX_DESCRIPTION_CHARS = 1_000


@dataclass(frozen=True, slots=True)
class Stored:
    """A definition, and who made it when."""

    definition: Definition
    created_by: str
    created_at: datetime


async def find_all(conn: AsyncConnection) -> dict[str, Stored]:
    """Every stored service by name."""
    return {row["name"]: stored(row) for row in (await conn.execute(statement("list_services"))).mappings()}


async def refresh(runtime: Runtime) -> dict[str, Stored]:
    """Make the stored services known to this process as they are now. Call it with no transaction open."""
    async with runtime.inference.refreshing:
        async with transaction(runtime.engine, runtime.settings) as conn:
            found = await find_all(conn)
        runtime.inference.keep_stored(stored.definition for stored in found.values())
    return found


async def refresh_for(runtime: Runtime, names: Iterable[str]) -> None:
    """The same, where any of these services is not one of the installation."""
    if not all(runtime.inference.is_built_in(name) for name in names):
        await refresh(runtime)


def check(definition: Definition, settings: Settings) -> None:
    """Refuse a definition with every problem that it has. Files and secrets that are not there yet are no problem."""
    problems = Problems()
    if not NAME.fullmatch(definition.name):
        message = "A name has 1 to 100 lower-case letters, digits, '_', '-' and '.', and begins with a letter or digit."
        problems.add(("body", "name"), "bad_name", message)
    if not 1 <= len(definition.model) <= MAX_MODEL_CHARS:
        problems.add(("body", "model"), "bad_setting", f"A model has 1 to {MAX_MODEL_CHARS} characters.")
    if len(definition.description) > MAX_DESCRIPTION_CHARS:
        message = f"A description has at most {MAX_DESCRIPTION_CHARS} characters."
        problems.add(("body", "description"), "bad_setting", message)
    if not 1 <= definition.dimension <= settings.max_dimension:
        message = f"A dimension is from 1 to {settings.max_dimension}."
        problems.add(("body", "dimension"), "bad_dimension", message)
    if "\0" in "".join([definition.model, definition.description, *map(str, definition.settings.values())]):
        problems.add(("body",), "nul_character", "PostgreSQL cannot store U+0000; remove it.")
    providers.check(definition, settings, problems)
    problems.refuse()


async def create(
    conn: AsyncConnection, inference: Inference, definition: Definition, settings: Settings, created_by: str
) -> Stored:
    """Store a service. `InvalidRequest` with every problem; `Conflict` when the name is taken."""
    check(definition, settings)
    binds = asdict(definition) | {"settings": as_json(definition.settings)}
    row = None
    if not inference.is_built_in(definition.name):
        statement_ = statement("insert_service")
        row = (await conn.execute(statement_, binds | {"created_by": created_by})).mappings().one_or_none()
    if row is None:
        message = f"An inference service {definition.name!r} exists already; delete it first, or choose another name."
        raise Conflict(message, code="already_exists")
    about: dict[str, Any] = {
        "provider": definition.provider,
        "model": definition.model,
        "dimension": definition.dimension,
    }
    await audit.record(conn, "inference_service", "created", definition.name, **about)
    return stored(row)


async def delete(conn: AsyncConnection, inference: Inference, name: str) -> None:
    """Forget a service and what it embedded. `Conflict` while an index is mapped to it, or when it is built in."""
    if (await conn.execute(statement("lock_service"), {"name": name})).one_or_none() is None:
        if inference.is_built_in(name):
            raise Conflict(f"{name!r} comes with the installation and cannot be deleted.", code="built_in")
        raise NotFound("inference service", name)
    found = list((await conn.execute(statement("namespaces_of_service"), {"name": name})).scalars())
    if found:
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        message = f"{name!r} embeds for the namespaces {', '.join(map(repr, found[:10]))}{more}; delete them first."
        raise Conflict(message, code="in_use", namespaces=found)
    await conn.execute(statement("delete_service"), {"name": name})
    await audit.record(conn, "inference_service", "deleted", name)


async def held(
    conn: AsyncConnection, services: Mapping[str, ServiceInfo], inference_names: Iterable[str]
) -> dict[str, ServiceInfo]:
    """`services` as they are now, those of these names kept from deletion until the transaction ends."""
    names = sorted({name for name in inference_names if name in services and services[name].stored})
    if not names:
        return dict(services)
    rows = (await conn.execute(statement("hold_services"), {"names": names})).all()
    there = {row.name: replace(services[row.name], dimension=row.dimension) for row in rows}
    return {name: info for name, info in services.items() if name not in names} | there


def stored(row: Mapping[Any, Any]) -> Stored:
    """A row of `list_services`."""
    about = {name: row[name] for name in ("name", "provider", "model", "dimension", "description")}
    definition = Definition(**about, settings=msgspec.json.decode(row["settings"]))
    return Stored(definition, row["created_by"], row["created_at"])
