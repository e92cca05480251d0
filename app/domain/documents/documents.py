"""Documents: upserting them whole, reading and deleting one. What was sent comes back as it was sent."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgspec
import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, Insert, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import raw
from app.domain.documents import hits, sources
from app.domain.documents.hits import Shown
from app.domain.security import acls
from app.errors import Conflict, NotFound, Problem, Problems
from app.retrieval.catalog import Catalog, VectorConfig, vector_type
from app.retrieval.plan import render
from app.retrieval.vectors import Value, as_value
from app.settings import Settings

DIRECT_UPSERT = "_direct_upsert"
NOTHING_MORE = Shown()


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was sent; payload and metadata are JSON text, kept to the digit."""

    document_id: str
    vectors: Mapping[str, Any]
    payload: bytes = b"{}"
    metadata: bytes = b"{}"
    acl: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Checked:
    """Documents that may be stored: ids, JSON and for each vector config a column of vectors."""

    ids: list[str] = field(default_factory=list)
    payloads: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    acls: list[str | None] = field(default_factory=list)
    vectors: dict[str, list[Value | None]] = field(default_factory=dict)


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
        check_json(document, settings, here, problems)
        acl = acls.check(document.acl, (*here, "acl"), problems)
        vectors = _check_vectors(catalog, document, settings, here, known, problems)
        checked.ids.append(document.document_id)
        checked.payloads.append(document.payload.decode("utf-8", "surrogatepass"))
        checked.metadata.append(document.metadata.decode("utf-8", "surrogatepass"))
        checked.acls.append(None if acl is None else acls.whole(acl))
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


def check_json(document: Document, settings: Settings, here: tuple[str | int, ...], problems: Problems) -> None:
    if len(document.payload) + len(document.metadata) > settings.max_document_bytes:
        message = f"{document.document_id!r}: payload and metadata exceed {settings.max_document_bytes} bytes."
        problems.add((*here, "payload"), "document_too_large", message)
    for name in ("payload", "metadata"):
        text: bytes = getattr(document, name)
        if rb"\u0000" in text and holds_nul(msgspec.json.decode(text)):
            message = f"{document.document_id!r}: PostgreSQL cannot store U+0000 in text; remove it from {name}."
            problems.add((*here, name), "nul_character", message)


def holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(holds_nul(item) for item in value)


def _check_vectors(
    catalog: Catalog,
    document: Document,
    settings: Settings,
    here: tuple[str | int, ...],
    known: set[tuple[str | int, ...]],
    problems: Problems,
) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, given in document.vectors.items():
        at = (*here, "vectors", name)
        if at in known:
            continue
        config = catalog.by_name.get(name)
        if config is None:
            available = ", ".join(repr(known) for known in catalog.by_name) or "none"
            message = f"{document.document_id!r}: no vector index {name!r} exists; available indexes: {available}."
            problems.add(at, "unknown_vector", message)
        else:
            try:
                if isinstance(given, list) and config.kind == "multi" and len(given) > settings.max_multi_vectors:
                    raise ValueError(
                        f"it has {len(given)} vectors; a multi-vector has at most {settings.max_multi_vectors}"
                    )
                found[name] = as_value(given, config)
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
    *,
    new: bool = False,
    keep_acl: bool = False,
) -> None:
    """Store the documents, each replacing the one of its id whole, but with `keep_acl` for its access list; searchable
    when the transaction commits.

    The caller holds the namespace's shared lock. Raises `InvalidRequest`, or `Conflict` where an id lives in another
    collection, or, where only `new` ones are wanted, at all; then nothing is stored.
    """
    checked = check_documents(catalog, documents, settings, refused)
    values: dict[str, Any] = {"ids": checked.ids, "payloads": checked.payloads, "metadata": checked.metadata}
    values |= {f"v{n}": checked.vectors[config.name] for n, config in enumerate(in_row(catalog))}
    values["collection_id"] = catalog.collection_id(collection_id)
    with_acl = not keep_acl and acls.storable(catalog, checked.acls)
    values |= {"acls": checked.acls} if with_acl else {}
    driver = await raw(conn)
    values |= sources.binds(catalog)
    text = render(_upsert_statement(catalog, new, with_acl))
    stored = {row[0] for row in await (await driver.execute(text, values)).fetchall()}
    if elsewhere := [document_id for document_id in checked.ids if document_id not in stored]:
        if new:
            raise Conflict(f"A document {elsewhere[0]!r} exists already; upsert or patch it.", code="already_exists")
        shown = ", ".join(map(repr, elsewhere[:10]))
        message = f"{len(elsewhere)} of these document_ids live in another collection: {shown}; delete them first."
        raise Conflict(message, code="other_collection", document_ids=elsewhere)
    for config in catalog.vector_configs:
        if config.kind == "multi":
            await _replace_multi(driver, catalog, config, checked)


def by_last_segment(catalog: Catalog, given: Document) -> Document:
    """The document with its vectors under the names of indexes, also where a feature URI's last part names them."""
    vectors = {}
    for name, vector in given.vectors.items():
        last = name.rsplit("/", 1)[-1]
        vectors[last if name not in catalog.by_name and last in catalog.by_name else name] = vector
    return replace(given, vectors=vectors)


async def _replace_multi(
    driver: psycopg.AsyncConnection[Any], catalog: Catalog, config: VectorConfig, checked: Checked
) -> None:
    """The rows of these documents' multi-vectors, in place of those that they had."""
    side = catalog.side(config)
    gone = sa.delete(side).where(side.c.document_id == sa.func.any(sa.cast(sa.bindparam("ids"), ARRAY(sa.Text))))
    await driver.execute(render(gone), {"ids": checked.ids})
    given = zip(checked.ids, checked.vectors[config.name], strict=True)
    rows = [(owner, n, vector) for owner, vectors in given for n, vector in enumerate(cast(list[Any], vectors or ()))]
    if rows:
        arrays = [
            sa.cast(sa.bindparam("owners"), ARRAY(sa.Text)),
            sa.cast(sa.bindparam("positions"), ARRAY(sa.Integer)),
            sa.cast(sa.bindparam("vectors"), ARRAY(vector_type(config))),
        ]
        names = ("document_id", "position", "vector")
        unnested = sa.func.unnest(*arrays).table_valued(*names).render_derived(name="given")
        new = insert(side).from_select(names, sa.select(unnested))
        values = dict(zip(("owners", "positions", "vectors"), map(list, zip(*rows, strict=True)), strict=True))
        await driver.execute(render(new), values)


def in_row(catalog: Catalog) -> list[VectorConfig]:
    """The vector configs whose vectors stand in the documents' own rows."""
    return [config for config in catalog.vector_configs if config.kind != "multi"]


def _upsert_statement(catalog: Catalog, new: bool, with_acl: bool) -> sa.Insert:
    """INSERT … SELECT FROM unnest(…) ON CONFLICT: one statement for any number of documents."""
    documents = catalog.relation
    configs = in_row(catalog)
    vectors = [documents.c[config.column] for config in configs]
    text = ARRAY(sa.Text)
    arrays = [sa.cast(sa.bindparam(name), text) for name in ("ids", "payloads", "metadata")]
    arrays += [sa.cast(sa.bindparam(f"v{n}"), ARRAY(vector_type(config))) for n, config in enumerate(configs)]
    names = ["document_id", "payload", "metadata", *(column.name for column in vectors)]
    if with_acl:
        arrays.append(sa.cast(sa.bindparam("acls"), text))
        names.append("acl")
    given = sa.func.unnest(*arrays).table_valued(*names).render_derived(name="given")
    selected = sa.select(
        given.c.document_id,
        sa.cast(sa.bindparam("collection_id"), sa.Text),
        sa.cast(given.c.payload, JSONB),
        sa.cast(given.c.metadata, JSONB),
        *(given.c[column.name] for column in vectors),
        *(acls.columns(sa.cast(given.c.acl, JSONB)) if with_acl else []),
    )
    columns = ["document_id", "collection_id", "payload", "metadata", *(column.name for column in vectors)]
    columns += acls.COLUMNS if with_acl else []
    inserted = insert(documents).from_select(columns, selected)
    if new:
        return inserted.on_conflict_do_nothing(index_elements=["document_id"]).returning(documents.c.document_id)
    return replacing(catalog, inserted, columns).returning(documents.c.document_id)


def replacing(catalog: Catalog, inserted: Insert, columns: Sequence[str]) -> Insert:
    """The INSERT of these columns, each document in place of the one of its id, if that is in the same collection.

    `sources.binds` are its binds.
    """
    documents = catalog.relation
    replaced: dict[str, Any] = {name: inserted.excluded[name] for name in columns[2:]}
    replaced["updated_at"] = sa.func.now()
    # No caller brings a shadow's vector: what is there belongs to the document of before.
    replaced |= {shadow.column: inserted.excluded[shadow.column] for shadow in catalog.shadows}
    replaced |= sources.kept(catalog, documents, inserted.excluded)
    return inserted.on_conflict_do_update(
        index_elements=["document_id"],
        set_=replaced,
        where=documents.c.collection_id == inserted.excluded.collection_id,
    )


async def get(
    conn: AsyncConnection,
    catalog: Catalog,
    document_id: str,
    *,
    collection: str | None = None,
    shown: Shown = NOTHING_MORE,
) -> dict[str, Any]:
    """One document; `NotFound` when there is none of that id (in that collection)."""
    stored = catalog.documents.c
    found = sa.select(*hits.columns(catalog, shown)).where(stored.document_id == document_id)
    if collection is not None:
        found = found.where(stored.collection_id == catalog.collection_id(collection))
    row = (await conn.execute(found)).one_or_none() if "\0" not in document_id else None
    if row is None:
        raise NotFound("document", document_id)
    return hits.document(row, shown)


async def delete(conn: AsyncConnection, catalog: Catalog, document_id: str, collection: str | None = None) -> None:
    documents = catalog.relation
    gone = sa.delete(documents).where(documents.c.document_id == document_id)
    if collection is not None:
        gone = gone.where(documents.c.collection_id == catalog.collection_id(collection))
    if "\0" in document_id or (await conn.execute(gone)).rowcount == 0:
        raise NotFound("document", document_id)
