"""Chunks of files stored as upserts store documents: by COPY into a temporary table, and from there in one statement.

So triggers, conflicts and what is kept of earlier vectors are those of an upsert, whatever the documents came by.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import psycopg
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector import SparseVector
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateTable

from app.db.engine import raw
from app.domain.documents import sources
from app.domain.documents.documents import DIRECT_UPSERT, holds_nul, in_row, replacing
from app.domain.security import acls
from app.errors import Problems
from app.moving import copying
from app.moving.rows import Dense, Rows
from app.retrieval.catalog import Catalog, VectorConfig, vector_type
from app.retrieval.plan import render
from app.retrieval.vectors import HALF_MAX, as_value
from app.settings import Settings

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
COPY = "COPY pg_temp.pgretrieve_arriving FROM STDIN (FORMAT binary)"


@dataclass(frozen=True, slots=True)
class Refused:
    """A document of a file that is not stored: its line or row, and why."""

    number: int
    document_id: str | None
    code: str
    message: str


@dataclass(slots=True)
class Arriving:
    """Documents that may be stored, as fields of a COPY: in each column one for each document."""

    ids: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    columns: list[list[bytes | None]] = field(default_factory=list)


def check(
    rows: Rows, catalog: Catalog, settings: Settings, collection_id: str | None, vector_oid: int
) -> tuple[Arriving, list[Refused]]:
    """What of the chunk may be stored, and what is wrong with the rest: everything, by its number in the file.

    Of several documents of one id the last one counts, as with upserts one after another.
    """
    refused = [Refused(bad.number, None, "unreadable_line", bad.message) for bad in rows.unreadable]
    ids = [str(i) if type(i) is int else i for i in rows.ids]
    collections = [collection_id or given or DIRECT_UPSERT for given in rows.collections]
    for n in range(len(ids)):
        refused += (
            Refused(rows.numbers[n], _shown(ids[n]), *why) for why in _check_row(rows, ids, collections, n, settings)
        )
    lists, wrong_lists = _acls(rows.acls, len(ids))
    refused += (Refused(rows.numbers[n], _shown(ids[n]), "bad_acl", message) for n, message in wrong_lists)
    with_acl = acls.storable(catalog, lists)
    fields: list[list[bytes | None]] = []
    for name in sorted(rows.vectors.keys() - catalog.by_name.keys()):
        refused += _unknown(rows, ids, name, catalog)
    for config in catalog.vector_configs:
        column, wrong = _vectors(rows.vectors.get(config.name), config, settings, vector_oid, len(ids))
        fields.append(column)
        refused += (Refused(rows.numbers[n], _shown(ids[n]), "bad_vector", message) for n, message in wrong)
    bad = {problem.number for problem in refused}
    last = {identifier: n for n, identifier in enumerate(ids) if rows.numbers[n] not in bad}
    # In the order of the ids, as upserts lock them.
    keep = [last[identifier] for identifier in sorted(last)]
    arriving = Arriving([ids[n] for n in keep], [rows.numbers[n] for n in keep])
    arriving.columns = [
        [copying.field(ids[n].encode()) for n in keep],
        [copying.field(catalog.collection_id(collections[n]).encode()) for n in keep],
        [copying.field(copying.JSONB + rows.payloads[n]) for n in keep],
        [copying.field(copying.JSONB + rows.metadata[n]) for n in keep],
        *([[lists[n] for n in keep]] if with_acl else []),
        *([column[n] for n in keep] for column in fields),
    ]
    return arriving, sorted(refused, key=lambda problem: problem.number)


def _shown(identifier: Any) -> str | None:
    return identifier if isinstance(identifier, str) else None


def _check_row(
    rows: Rows, ids: list[Any], collections: list[Any], n: int, settings: Settings
) -> Iterator[tuple[str, str]]:
    identifier, collection = ids[n], collections[n]
    if not isinstance(identifier, str) or not 1 <= len(identifier) <= 512 or not _storable(identifier):
        ids[n] = identifier if isinstance(identifier, str) else None
        yield "bad_document_id", "A document_id has 1 to 512 characters, none U+0000."
    if not isinstance(collection, str) or not 1 <= len(collection) <= 128 or not _storable(collection):
        yield "bad_collection_id", "A collection_id has 1 to 128 characters, none U+0000."
    if len(rows.payloads[n]) + len(rows.metadata[n]) > settings.max_document_bytes:
        yield "document_too_large", f"Payload and metadata exceed {settings.max_document_bytes} bytes."
    for name, text in (("payload", rows.payloads[n]), ("metadata", rows.metadata[n])):
        try:
            _object(text)
            if rb"\u0000" in text and holds_nul(msgspec.json.decode(text)):
                yield "nul_character", f"PostgreSQL cannot store U+0000 in text; remove it from {name}."
            elif rb"\ud" in text or rb"\uD" in text:
                msgspec.json.decode(text)  # half a surrogate pair is no text
        except (msgspec.DecodeError, UnicodeError) as error:
            yield "bad_json", f"The {name} is no JSON object: {error}."


def _acls(given: list[bytes | None], count: int) -> tuple[list[bytes | None], list[tuple[int, str]]]:
    """Fields of access lists, and which are none and why."""
    fields: list[bytes | None] = [None] * count
    wrong: list[tuple[int, str]] = []
    for n, text in enumerate(given):
        if text is None:
            continue
        problems = Problems()
        try:
            acl = acls.check(msgspec.json.decode(text), ("acl",), problems)
        except (msgspec.DecodeError, UnicodeError) as error:
            problems.add(("acl",), "bad_acl", f"The access list is no JSON object: {error}.")
        else:
            fields[n] = None if acl is None else copying.field(copying.JSONB + acls.whole(acl).encode())
        wrong += ((n, problem.message) for problem in problems.found[:1])
    return fields, wrong


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _unknown(rows: Rows, ids: Sequence[Any], name: str, catalog: Catalog) -> Iterator[Refused]:
    column = rows.vectors[name]
    available = ", ".join(map(repr, catalog.by_name)) or "none"
    for n, value in enumerate(column.present if isinstance(column, Dense) else column):
        if value is not None and value is not False:
            message = f"No vector index {name!r} exists; available indexes: {available}."
            yield Refused(rows.numbers[n], _shown(ids[n]), "unknown_vector", message)


def _vectors(
    column: Dense | list[Any] | None, config: VectorConfig, settings: Settings, vector_oid: int, count: int
) -> tuple[list[bytes | None], list[tuple[int, str]]]:
    """A config's fields, and which are none and why."""
    if column is None:
        return [None] * count, []
    if isinstance(column, Dense):
        suspects = np.flatnonzero(column.present & _suspect(column.matrix, config))
        found = ((int(n), _why_not(column.matrix[n], config, settings)) for n in suspects)
        return copying.dense_fields(column, config.dimension), [(n, why) for n, why in found if why]
    fields: list[bytes | None] = []
    wrong: list[tuple[int, str]] = []
    for n, value in enumerate(column):
        why = None if value is None else _why_not(value, config, settings)
        if why:
            wrong.append((n, why))
        fields.append(None if value is None or why else _field(value, config, vector_oid))
    return fields, wrong


def _suspect(matrix: NDArray[np.float32], config: VectorConfig) -> NDArray[np.bool_]:
    """Which rows may not be stored, by all rules at once; `as_value` says why."""
    suspect: NDArray[np.bool_] = np.logical_not(np.isfinite(matrix).all(axis=1))
    if config.metric == "cosine":
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            norm = np.einsum("ij,ij->i", matrix, matrix)
        suspect |= (norm < 1e-30) | (norm > 1e37) | np.isnan(norm)
    if config.index_method == "hnsw_halfvec":
        suspect |= np.abs(matrix).max(axis=1, initial=0.0) > HALF_MAX
    return suspect


def _why_not(value: Any, config: VectorConfig, settings: Settings) -> str | None:
    try:
        if config.kind == "multi" and isinstance(value, list) and len(value) > settings.max_multi_vectors:
            most = settings.max_multi_vectors
            raise ValueError(f"it has {len(value)} vectors; a multi-vector has at most {most}")
        as_value(value, config)
    except ValueError as error:
        return f"The vector {config.name!r} cannot be stored: {error}."
    return None


def _field(value: Any, config: VectorConfig, vector_oid: int) -> bytes:
    checked = as_value(value, config)
    if isinstance(checked, SparseVector):
        return copying.field(checked.to_binary())
    if isinstance(checked, list):
        return copying.array_field(checked, vector_oid)
    return copying.vector_field(checked)


async def vector_oid(conn: AsyncConnection) -> int:
    """The oid of pgvector's type in this database."""
    found = (await raw(conn)).adapters.types.get("vector")
    assert found is not None, "the pool registers it on each connection"
    return found.oid


async def store(conn: AsyncConnection, catalog: Catalog, arriving: Arriving) -> list[Refused]:
    """Store the documents within the caller's transaction, who holds the namespace's shared lock.

    Answers those whose id lives in another collection: they are not stored, the others are.
    """
    if not arriving.ids:
        return []
    driver, staging = await raw(conn), _staging(catalog)
    await conn.execute(CreateTable(staging))
    async with driver.cursor() as cursor, cursor.copy(COPY) as copy:
        await copy.write(copying.HEADER)
        block = bytearray()
        for row in copying.tuples(arriving.columns):
            block += row
            if len(block) > 1_000_000:
                await copy.write(bytes(block))
                block.clear()
        await copy.write(bytes(block) + copying.TRAILER)
    cursor = await driver.execute(render(_insert(catalog, staging)), sources.binds(catalog))
    elsewhere: list[str] = []
    if cursor.rowcount < len(arriving.ids):
        found = await driver.execute(render(_elsewhere(catalog, staging)))
        elsewhere = [row[0] for row in await found.fetchall()]
    await _replace_multi(driver, catalog, staging, elsewhere)
    await conn.execute(sa.text("DROP TABLE pg_temp.pgretrieve_arriving"))
    numbers = dict(zip(arriving.ids, arriving.numbers, strict=True))
    message = "The document_id lives in another collection; delete it there first."
    return [Refused(numbers[i], i, "other_collection", message) for i in elsewhere]


def _staging(catalog: Catalog) -> sa.Table:
    """What arrives: gone with the transaction, and in nobody's log. Multi-vectors stand in it as arrays."""
    columns = [sa.Column(name, sa.Text()) for name in ("document_id", "collection_id")]
    columns += [
        sa.Column(name, JSONB) for name in ("payload", "metadata", *(["acl"] if catalog.has_access_lists else []))
    ]
    for n, config in enumerate(catalog.vector_configs):
        kind = vector_type(config)
        columns.append(sa.Column(f"v{n}", ARRAY(kind) if config.kind == "multi" else kind))
    prefixes = ["TEMPORARY"]
    return sa.Table(
        "pgretrieve_arriving", sa.MetaData(), *columns, prefixes=prefixes, postgresql_on_commit="DROP", schema="pg_temp"
    )


def _insert(catalog: Catalog, staging: sa.Table) -> sa.Insert:
    numbers = {config.name: n for n, config in enumerate(catalog.vector_configs)}
    vectors = {config.column: staging.c[f"v{numbers[config.name]}"] for config in in_row(catalog)}
    own = [staging.c[name] for name in ("document_id", "collection_id", "payload", "metadata")]
    columns = [*(column.name for column in own), *vectors, *(acls.COLUMNS if catalog.has_access_lists else ())]
    lists = acls.columns(staging.c.acl) if catalog.has_access_lists else []
    # COPY brought them in the order of their ids, and a scan keeps it.
    inserted = insert(catalog.relation).from_select(columns, sa.select(*own, *vectors.values(), *lists))
    return replacing(catalog, inserted, columns)


def _elsewhere(catalog: Catalog, staging: sa.Table) -> sa.Select[Any]:
    documents = catalog.relation
    same = documents.c.document_id == staging.c.document_id
    other = documents.c.collection_id != staging.c.collection_id
    return sa.select(staging.c.document_id).join(documents, same).where(other).order_by(staging.c.document_id)


async def _replace_multi(
    driver: psycopg.AsyncConnection[Any], catalog: Catalog, staging: sa.Table, elsewhere: Sequence[str]
) -> None:
    """The rows of these documents' multi-vectors, in place of those that they had."""
    not_stored = sa.cast(sa.bindparam("elsewhere"), ARRAY(sa.Text))
    for n, config in enumerate(catalog.vector_configs):
        if config.kind != "multi":
            continue
        side, stored = catalog.side(config), staging.c.document_id != sa.func.all(not_stored)
        gone = sa.delete(side).where(side.c.document_id == staging.c.document_id, stored)
        unnested = sa.func.unnest(staging.c[f"v{n}"]).table_valued("vector", with_ordinality="position")
        each = unnested.render_derived(name="each")
        place = sa.cast(each.c.position - sa.literal_column("1"), sa.Integer)
        rows = sa.select(staging.c.document_id, place, each.c.vector).select_from(staging.join(each, sa.true()))
        new = insert(side).from_select(("document_id", "position", "vector"), rows.where(stored))
        for statement in (gone, new):
            await driver.execute(render(statement), {"elsewhere": list(elsewhere)})
