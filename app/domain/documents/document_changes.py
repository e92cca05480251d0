"""Changes of stored documents: fields set and merged, by ids or by a filter, and documents deleted so.

All of it is done by jsonb operators in one statement, so that numbers keep their digits and no change is lost.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.documents.document_lists import matching, values_of
from app.domain.documents.documents import holds_nul
from app.errors import Problems
from app.retrieval.catalog import Catalog
from app.retrieval.filters import Filter
from app.retrieval.plan import Binds
from app.settings import Settings

Fields = Mapping[str, msgspec.Raw]
Location = tuple[str | int, ...]
Path = tuple[str, ...]
# What a document's root has beside the payload's fields and the metadata.
NOT_CHANGED = frozenset(
    {"document_id", "collection_id", "score", "vectors", "_vectors", "_internal", "acl", "_expanded"}
)
MAX_DEPTH = 16
MAX_PLACES = 64
EMPTY = sa.literal_column("'{}'::jsonb", JSONB)
_as_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(slots=True)
class Change:
    """What is done to a document's payload and metadata.

    `merged`: fields that are set in the object at a path of a column, which is made where it is missing; `replaced`:
    whole columns; `removed`: keys that the metadata loses.
    """

    merged: dict[tuple[str, Path], dict[str, msgspec.Raw]] = field(default_factory=dict)
    replaced: dict[str, msgspec.Raw] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[Any, ...]:
        """Changes of one shape are made by one statement."""
        return (tuple(sorted(self.merged)), tuple(sorted(self.replaced)), bool(self.removed))

    def values(self) -> list[str]:
        """JSON texts, in the order of the shape."""
        merged, replaced, removes = self.shape
        values = [msgspec.json.encode(self.merged[place]).decode() for place in merged]
        values += [bytes(self.replaced[column]).decode() for column in replaced]
        return values + ([msgspec.json.encode(self.removed).decode()] if removes else [])


def read_change(fields: Fields, at: Location, problems: Problems, settings: Settings, *, merging: bool) -> Change:
    """The change that these fields mean: those of the payload, `metadata` and `payload`, by their dotted paths.

    With `merging`, `metadata` and `payload` themselves are objects whose keys are set one by one, and a `metadata` key
    that is null is removed; without, they replace what was there.
    """
    change, before = Change(), len(problems.found)
    size = 0
    for name, raw in fields.items():
        here = (*at, name)
        size += len(name) + len(memoryview(raw))
        if rb"\u0000" in bytes(raw) and holds_nul(msgspec.json.decode(raw)):
            problems.add(here, "nul_character", "PostgreSQL cannot store U+0000 in text; remove it.")
        column, path = _place(name)
        if path and path[0] in NOT_CHANGED and column == "payload" and not name.startswith("payload."):
            hint = (
                "upsert the document to change its vectors" if path[0] == "vectors" else "the payload's own field of "
            )
            hint += "" if path[0] == "vectors" else f"this name is `payload.{path[0]}`"
            problems.add(here, "not_changeable", f"`{name}` is the system's and cannot be set; {hint}.")
        elif "" in path or "\0" in name or len(path) > MAX_DEPTH or len(name) > 1_000:
            message = f"A field is named by names joined by single dots, at most {MAX_DEPTH} of them."
            problems.add(here, "bad_field", message)
        elif path:
            change.merged.setdefault((column, path[:-1]), {})[path[-1]] = raw
        else:
            _whole(change, column, raw, here, problems, merging)
    if size > settings.max_document_bytes:
        problems.add(at, "document_too_large", f"The change exceeds {settings.max_document_bytes} bytes.")
    if len(problems.found) == before:
        _check_places(change, at, problems)
    return change


def _place(name: str) -> tuple[str, Path]:
    """The column and the path in it that a dotted name means; an empty path is the whole column."""
    path = tuple(name.split("."))
    if path[:2] == ("_internal", "metadata"):
        return "metadata", path[2:]
    if path[0] in ("metadata", "payload"):
        return path[0], path[1:]
    return "payload", path


def _whole(change: Change, column: str, raw: msgspec.Raw, at: Location, problems: Problems, merging: bool) -> None:
    try:
        given = _as_fields.decode(raw)
    except msgspec.DecodeError:
        problems.add(at, "bad_type", f"`{column}` is an object.")
        return
    if not merging:
        change.replaced[column] = raw
        return
    for key, value in given.items():
        if column == "metadata" and bytes(value) == b"null":
            change.removed.append(key)
        else:
            change.merged.setdefault((column, ()), {})[key] = value


def _check_places(change: Change, at: Location, problems: Problems) -> None:
    """A place that is set whole cannot be changed within besides, for the order would decide."""
    inner = {(column, path[:n]) for column, path in change.merged for n in range(1, len(path) + 1)}
    if len(inner) > MAX_PLACES:
        problems.add(at, "out_of_range", f"A change goes through at most {MAX_PLACES} nested objects.")
    for column, path in change.merged:
        above = [(column, path[:n], path[n]) for n in range(len(path))]
        set_above = any(key in change.merged.get((place, inner), {}) for place, inner, key in above)
        gone = column == "metadata" and path and path[0] in change.removed
        if set_above or gone or column in change.replaced:
            name = ".".join((column, *path))
            problems.add(at, "conflicting_fields", f"`{name}` is set whole and within; say one of them.")


# As SQL


@dataclass(frozen=True, slots=True)
class Given:
    """The values of a shape as columns of a relation, jsonb each."""

    change: Change
    columns: Sequence[sa.ColumnElement[Any]]

    def changed(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """The column after the change."""
        merged, replaced, removes = self.change.shape
        if column.name in replaced:
            at: int = len(merged) + replaced.index(column.name)
            return self.columns[at]
        values = {path: self.columns[n] for n, (name, path) in enumerate(merged) if name == column.name}
        if column.name == "metadata" and removes:
            keys = sa.func.jsonb_array_elements_text(self.columns[-1]).column_valued("key")
            less = column.op("-", return_type=JSONB())(sa.func.array(sa.select(keys).scalar_subquery()))
            return _merge(column, less, values, ())
        return _merge(column, column, values, ())

    def obstructed(self, documents: sa.FromClause) -> sa.ColumnElement[bool]:
        """Whether on the way to a nested field there is something that is no object, which would be lost."""
        inner = {(name, path[:n]) for name, path in self.change.merged for n in range(1, len(path) + 1)}
        kinds = [sa.func.jsonb_typeof(_at(documents.c[name], path)) for name, path in sorted(inner)]
        return sa.or_(sa.false(), *(sa.func.coalesce(kind.not_in(("object", "null")), sa.false()) for kind in kinds))


def _at(column: sa.ColumnElement[Any], path: Path) -> sa.ColumnElement[Any]:
    steps = sa.cast(sa.literal(list(path), ARRAY(sa.Text)), ARRAY(sa.Text))
    found: sa.ColumnElement[Any] = column.op("#>", return_type=JSONB())(steps)
    return found


def _merge(
    column: sa.ColumnElement[Any],
    stored: sa.ColumnElement[Any],
    values: Mapping[Path, sa.ColumnElement[Any]],
    path: Path,
) -> sa.ColumnElement[Any]:
    """The object at this path with what is set in it and below."""
    if path:
        stored = _at(column, path)
        stored = sa.case((sa.func.jsonb_typeof(stored) == "object", stored), else_=EMPTY)
    if path in values:
        stored = stored.op("||", return_type=JSONB())(values[path])
    depth = len(path)
    for key in sorted({inner[depth] for inner in values if inner[:depth] == path and len(inner) > depth}):
        below = _merge(column, stored, values, (*path, key))
        name = sa.cast(sa.literal(key), sa.Text)
        stored = stored.op("||", return_type=JSONB())(sa.func.jsonb_build_object(name, below))
    return stored


# What is done


@dataclass(frozen=True, slots=True)
class Tally:
    """How many documents were changed, and how many could not be since something was in the way."""

    changed: int
    obstructed: int


async def change_each(
    conn: AsyncConnection, catalog: Catalog, changes: Mapping[str, Change], collection: str | None
) -> dict[str, bool]:
    """Change documents by their ids, each its own way: true for those changed, false for those obstructed.

    Ids that are not in the answer are of no document (of that collection).
    """
    done: dict[str, bool] = {}
    for group in _of_one_shape(changes):
        some = changes[group[0]]
        binds = Binds()
        rows = zip(*(changes[document_id].values() for document_id in group), strict=True)
        arrays = [list(group), *map(list, rows)]
        names = ["document_id", *(f"v{n}" for n in range(len(arrays) - 1))]
        columns = [binds.add(f"given_{n}", ARRAY(sa.Text), array) for n, array in enumerate(arrays)]
        given = sa.func.unnest(*columns).table_valued(*names).render_derived(name="given")
        where = matching(catalog, binds, [collection] if collection is not None else ())
        where.append(catalog.documents.c.document_id == given.c.document_id)
        found = _found(catalog, some, [sa.cast(given.c[name], JSONB) for name in names[1:]], where)
        answer = sa.select(found.c.document_id, sa.not_(found.c.obstructed)).add_cte(_changed(catalog, some, found))
        done |= {row[0]: row[1] for row in (await conn.execute(answer, values_of(binds))).all()}
    return done


def _of_one_shape(changes: Mapping[str, Change]) -> Iterator[list[str]]:
    groups: dict[Any, list[str]] = {}
    for document_id in sorted(changes):
        if "\0" not in document_id:
            groups.setdefault(changes[document_id].shape, []).append(document_id)
    yield from groups.values()


async def exists(conn: AsyncConnection, catalog: Catalog, document_id: str, collection: str | None) -> bool:
    if "\0" in document_id:
        return False
    binds = Binds()
    where = matching(catalog, binds, [collection] if collection is not None else ())
    where.append(catalog.documents.c.document_id == binds.add("id", sa.Text(), document_id))
    found = sa.select(sa.exists(sa.select(sa.literal(1)).select_from(catalog.documents).where(*where)))
    return bool((await conn.execute(found, values_of(binds))).scalar_one())


async def change_matching(
    conn: AsyncConnection, catalog: Catalog, change: Change, collection: str | None, filters: Filter | None
) -> Tally:
    """Change every document that matches, in one way."""
    binds = Binds()
    where = matching(catalog, binds, [collection] if collection is not None else (), filters)
    columns = [binds.add("value", JSONB(), value) for value in change.values()]
    found = _found(catalog, change, columns, where)
    count = sa.func.count()
    answer = sa.select(count.filter(sa.not_(found.c.obstructed)), count.filter(found.c.obstructed))
    row = (await conn.execute(answer.add_cte(_changed(catalog, change, found)), values_of(binds))).one()
    return Tally(*row)


def _found(
    catalog: Catalog, change: Change, values: Sequence[sa.ColumnElement[Any]], where: Sequence[sa.ColumnElement[bool]]
) -> sa.CTE:
    """The documents that are meant, locked in the order of their ids as upserts lock them, beside their values."""
    documents = catalog.documents
    obstructed = Given(change, values).obstructed(documents).label("obstructed")
    labelled = [value.label(f"v{n}") for n, value in enumerate(values)]
    found = sa.select(documents.c.document_id, obstructed, *labelled).where(*where)
    return found.order_by(documents.c.document_id).with_for_update(of=documents, key_share=True).cte("found")


def _changed(catalog: Catalog, change: Change, found: sa.CTE) -> sa.CTE:
    # Without columns that users named: SQLAlchemy takes a bind that is called like a column for its new value.
    documents = replace(catalog, vector_configs=()).relation
    given = Given(change, [found.c[f"v{n}"] for n in range(len(change.values()))])
    changed = {name: given.changed(documents.c[name]) for name in ("payload", "metadata")}
    where = (documents.c.document_id == found.c.document_id, sa.not_(found.c.obstructed))
    update = sa.update(documents).where(*where).values(**changed, updated_at=sa.func.now())
    return update.returning(documents.c.document_id).cte("changed")


async def delete_each(
    conn: AsyncConnection, catalog: Catalog, document_ids: Sequence[str], collection: str | None
) -> set[str]:
    """Delete documents by their ids; answers those that there were."""
    binds = Binds()
    where = matching(catalog, binds, [collection] if collection is not None else ())
    ids = binds.add("ids", ARRAY(sa.Text), [one for one in document_ids if "\0" not in one])
    where.append(catalog.documents.c.document_id == sa.func.any(ids))
    gone = _delete(catalog, where).returning(catalog.relation.c.document_id)
    return {row[0] for row in (await conn.execute(gone, values_of(binds))).all()}


async def delete_matching(conn: AsyncConnection, catalog: Catalog, collection: str | None, filters: Filter) -> int:
    """Delete every document that matches; answers how many there were."""
    binds = Binds()
    where = matching(catalog, binds, [collection] if collection is not None else (), filters)
    return (await conn.execute(_delete(catalog, where), values_of(binds))).rowcount


def _delete(catalog: Catalog, where: Sequence[sa.ColumnElement[bool]]) -> sa.Delete:
    documents = catalog.documents
    locked = sa.select(documents.c.document_id).where(*where).order_by(documents.c.document_id)
    ids = locked.with_for_update(of=documents).cte("found")
    return sa.delete(catalog.relation).where(catalog.relation.c.document_id.in_(sa.select(ids.c.document_id)))
