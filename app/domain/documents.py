"""Documents: upserting them whole, reading, listing and deleting. What was sent comes back as it was sent."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import sqlalchemy as sa
from pgvector.sqlalchemy import VECTOR
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import raw
from app.errors import Conflict, NotFound, Problem, Problems
from app.retrieval.catalog import Catalog, Fields
from app.retrieval.filters import Filter
from app.retrieval.plan import Binds, render
from app.retrieval.predicates import predicate
from app.retrieval.vectors import Vector, as_vector
from app.settings import Settings

DIRECT_UPSERT = "_direct_upsert"
# At the root of a hit the system's keys win over the payload's; the payload is always whole under `payload`.
SYSTEM_KEYS = frozenset({"document_id", "collection_id", "score", "payload", "_internal", "vectors"})

NEGATIVE_ZERO = re.compile(r"(?<=[\[,])-0(?=[,\]])")
_as_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was sent; payload and metadata are JSON text, kept to the digit."""

    document_id: str
    vectors: Mapping[str, Any]
    payload: bytes = b"{}"
    metadata: bytes = b"{}"


@dataclass(slots=True)
class Checked:
    """Documents that may be stored: ids, JSON and for each vector config a column of vectors."""

    ids: list[str] = field(default_factory=list)
    payloads: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    vectors: dict[str, list[Vector | None]] = field(default_factory=dict)


def check_documents(
    catalog: Catalog, documents: Sequence[Document], settings: Settings, refused: Sequence[Problem] = ()
) -> Checked:
    """Check every document against the namespace; `InvalidRequest` lists all that is wrong with all of them.

    `refused` are problems that decoding found already. In the order of the ids, so that two upserts of the same
    documents lock them in the same order.
    """
    problems = Problems(list(refused))
    checked = Checked(vectors={config.name: [] for config in catalog.vector_configs})
    known = {problem.location[:5] for problem in refused}
    counts = Counter(document.document_id for document in documents)
    for n, document in sorted(enumerate(documents), key=lambda item: item[1].document_id):
        here: tuple[str | int, ...] = ("body", "documents", n)
        _check_id(document.document_id, counts, here, problems)
        _check_json(document, settings, here, problems)
        vectors = _check_vectors(catalog, document, here, known, problems)
        checked.ids.append(document.document_id)
        checked.payloads.append(document.payload.decode("utf-8", "surrogatepass"))
        checked.metadata.append(document.metadata.decode("utf-8", "surrogatepass"))
        for name, column in checked.vectors.items():
            column.append(vectors.get(name))
    problems.found.sort(key=lambda problem: problem.location[2])
    problems.refuse()
    return checked


def _check_id(document_id: str, counts: Counter[str], here: tuple[str | int, ...], problems: Problems) -> None:
    if not 1 <= len(document_id) <= 512 or "\0" in document_id:
        problems.add((*here, "document_id"), "bad_document_id", "A document_id has 1 to 512 characters, none U+0000.")
    if counts[document_id] > 1:
        message = f"The document_id {document_id!r} is given {counts[document_id]} times in this request."
        problems.add((*here, "document_id"), "duplicate_document_id", message)


def _check_json(document: Document, settings: Settings, here: tuple[str | int, ...], problems: Problems) -> None:
    if len(document.payload) + len(document.metadata) > settings.max_document_bytes:
        message = f"{document.document_id!r}: payload and metadata exceed {settings.max_document_bytes} bytes."
        problems.add((*here, "payload"), "document_too_large", message)
    for name in ("payload", "metadata"):
        text: bytes = getattr(document, name)
        if rb"\u0000" in text and _holds_nul(msgspec.json.decode(text)):
            message = f"{document.document_id!r}: PostgreSQL cannot store U+0000 in text; remove it from {name}."
            problems.add((*here, name), "nul_character", message)


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)


def _check_vectors(
    catalog: Catalog,
    document: Document,
    here: tuple[str | int, ...],
    known: set[tuple[str | int, ...]],
    problems: Problems,
) -> dict[str, Vector]:
    found: dict[str, Vector] = {}
    for name, given in document.vectors.items():
        at = (*here, "vectors", name)
        if at in known:
            continue
        config = catalog.by_name.get(name)
        if config is None:
            available = ", ".join(repr(known) for known in catalog.by_name) or "none"
            message = f"{document.document_id!r}: no vector index {name!r} exists; available indexes: {available}."
            problems.add(at, "unknown_vector", message)
        elif isinstance(given, dict) or (isinstance(given, list) and given and isinstance(given[0], list)):
            message = f"{document.document_id!r}: sparse and multi-vectors are not offered by this server."
            problems.add(at, "not_offered", message)
        else:
            try:
                found[name] = as_vector(given, config)
            except ValueError as error:
                message = f"{document.document_id!r}: the vector {name!r} cannot be stored: {error}."
                problems.add(at, "bad_vector", message)
    return found


async def upsert(
    conn: AsyncConnection,
    catalog: Catalog,
    documents: Sequence[Document],
    settings: Settings,
    collection_id: str = DIRECT_UPSERT,
    refused: Sequence[Problem] = (),
) -> None:
    """Store the documents, each replacing the one of its id whole; searchable when the transaction commits.

    The caller holds the namespace's shared lock. Raises `InvalidRequest`, or `Conflict` where an id lives in another
    collection; then nothing is stored.
    """
    checked = check_documents(catalog, documents, settings, refused)
    values: dict[str, Any] = {"ids": checked.ids, "payloads": checked.payloads, "metadata": checked.metadata}
    values |= {f"v{n}": checked.vectors[config.name] for n, config in enumerate(catalog.vector_configs)}
    values["collection_id"] = collection_id
    driver = await raw(conn)
    text = render(_upsert_statement(catalog))
    stored = {row[0] for row in await (await driver.execute(text, values)).fetchall()}
    if elsewhere := [document_id for document_id in checked.ids if document_id not in stored]:
        shown = ", ".join(map(repr, elsewhere[:10]))
        message = f"{len(elsewhere)} of these document_ids live in another collection: {shown}; delete them first."
        raise Conflict(message, code="other_collection", document_ids=elsewhere)


def _upsert_statement(catalog: Catalog) -> sa.Insert:
    """INSERT … SELECT FROM unnest(…) ON CONFLICT: one statement for any number of documents."""
    documents = catalog.relation
    vectors = [documents.c[config.column] for config in catalog.vector_configs]
    text = ARRAY(sa.Text)
    arrays = [sa.cast(sa.bindparam(name), text) for name in ("ids", "payloads", "metadata")]
    arrays += [
        sa.cast(sa.bindparam(f"v{n}"), ARRAY(VECTOR(config.dimension)))
        for n, config in enumerate(catalog.vector_configs)
    ]
    names = ["document_id", "payload", "metadata", *(column.name for column in vectors)]
    given = sa.func.unnest(*arrays).table_valued(*names).render_derived(name="given")
    selected = [
        given.c.document_id,
        sa.cast(sa.bindparam("collection_id"), sa.Text),
        sa.cast(given.c.payload, JSONB),
        sa.cast(given.c.metadata, JSONB),
        *(given.c[column.name] for column in vectors),
    ]
    columns = ["document_id", "collection_id", "payload", "metadata", *(column.name for column in vectors)]
    new = insert(documents).from_select(columns, sa.select(*selected))
    replaced = {name: new.excluded[name] for name in columns[2:]} | {"updated_at": sa.func.now()}
    return new.on_conflict_do_update(
        index_elements=["document_id"],
        set_=replaced,
        where=documents.c.collection_id == new.excluded.collection_id,
    ).returning(documents.c.document_id)


def _select(catalog: Catalog, vectors: bool) -> sa.Select[Any]:
    documents = catalog.documents
    columns = documents.c
    configs = catalog.vector_configs if vectors else ()
    return sa.select(
        sa.null().label("rank"),
        columns.document_id,
        sa.null().label("score"),
        columns.collection_id,
        sa.cast(columns.payload, sa.Text),
        sa.cast(columns.metadata, sa.Text),
        columns.created_at,
        columns.updated_at,
        *(sa.cast(columns[config.column], sa.Text) for config in configs),
    )


async def get(
    conn: AsyncConnection,
    catalog: Catalog,
    document_id: str,
    *,
    collection: str | None = None,
    vectors: bool = False,
) -> dict[str, Any]:
    """One document; `NotFound` when there is none of that id (in that collection)."""
    columns = catalog.documents.c
    found = _select(catalog, vectors).where(columns.document_id == document_id)
    if collection is not None:
        found = found.where(columns.collection_id == collection)
    row = (await conn.execute(found)).one_or_none() if "\0" not in document_id else None
    if row is None:
        raise NotFound("document", document_id)
    return hit(row, tuple(catalog.by_name) if vectors else (), [])


async def list_page(
    conn: AsyncConnection,
    catalog: Catalog,
    *,
    collections: Sequence[str] = (),
    filters: Filter | None = None,
    after: str | None = None,
    limit: int,
    vectors: bool = False,
    total: bool = False,
) -> tuple[list[dict[str, Any]], int | None]:
    """A page in the order of the ids, after the id `after`; and, when asked, how many there are in all."""
    columns = catalog.documents.c
    binds = Binds()
    where: list[sa.ColumnElement[bool]] = []
    if collections:
        where.append(columns.collection_id.in_(collections))
    if filters is not None:
        where.append(predicate(filters, Fields(catalog.documents), binds, "filter"))
    values = {name: bind.convert(bind.value) for name, bind in binds.found.items()}
    page = _select(catalog, vectors).where(*where).order_by(columns.document_id).limit(limit)
    if after is not None:
        page = page.where(columns.document_id > after)
    rows = (await conn.execute(page, values)).all()
    counted = None
    if total:
        count = sa.select(sa.func.count()).select_from(catalog.documents).where(*where)
        counted = (await conn.execute(count, values)).scalar_one()
    names = tuple(catalog.by_name) if vectors else ()
    return [hit(row, names, []) for row in rows], counted


async def delete(conn: AsyncConnection, catalog: Catalog, document_id: str, collection: str | None = None) -> None:
    documents = catalog.relation
    gone = sa.delete(documents).where(documents.c.document_id == document_id)
    if collection is not None:
        gone = gone.where(documents.c.collection_id == collection)
    if "\0" in document_id or (await conn.execute(gone)).rowcount == 0:
        raise NotFound("document", document_id)


def hit(row: Sequence[Any], vectors: Sequence[str], warnings: list[str]) -> dict[str, Any]:
    """A document as answers show it: the payload's fields at the root, the system's keys, the whole payload.

    `row` is `(rank, document_id, score, collection_id, payload, metadata, created_at, updated_at, vectors…)`, JSON and
    vectors as text, which PostgreSQL writes so that it reads back to the same float32.
    """
    _rank, document_id, score, collection_id, payload, metadata, created_at, updated_at, *stored = row
    document: dict[str, Any] = dict(_as_fields.decode(payload))
    if clash := SYSTEM_KEYS & document.keys():
        names = ", ".join(sorted(clash))
        warnings.append(f"The payload has system keys ({names}); at the root the system's win, see `payload`.")
    document["document_id"] = document_id
    document["collection_id"] = collection_id
    document.pop("score", None)
    document.pop("vectors", None)
    if score is not None:
        document["score"] = score
    document["payload"] = msgspec.Raw(payload.encode())
    document["_internal"] = {"metadata": msgspec.Raw(metadata.encode()), "created_at": created_at}
    document["_internal"]["updated_at"] = updated_at
    if vectors:
        pairs = zip(vectors, stored, strict=True)
        document["vectors"] = {name: _as_json(text) for name, text in pairs if text is not None}
    return document


def _as_json(vector: str) -> msgspec.Raw:
    """PostgreSQL's text of a vector is JSON that reads back to the same float32, but for -0, which JSON readers take
    for the integer 0 and so lose its sign."""
    return msgspec.Raw(NEGATIVE_ZERO.sub("-0.0", vector).encode())
