"""Documents as answers show them: the payload's fields at the root, the system's keys, vectors, what is selected."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import array

from app.retrieval.catalog import Catalog

# At the root of a hit the system's keys win over the payload's; the payload is always whole under `payload`.
SYSTEM_KEYS = frozenset({"document_id", "collection_id", "score", "payload", "_internal", "vectors", "_vectors"})

NEGATIVE_ZERO = re.compile(r"(?<=[\[,])-0(?=[,\]])")
_as_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_as_items = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Shown:
    """What is answered of each document: these vectors, and who made them; the names of those that it has; only these
    fields."""

    vectors: tuple[str, ...] = ()
    names: bool = False
    select: tuple[str, ...] | None = None


def columns(catalog: Catalog, shown: Shown) -> list[sa.ColumnElement[Any]]:
    """What a statement on `catalog.documents` selects for `document`."""
    documents = catalog.documents
    columns = documents.c
    return [
        sa.null().label("rank"),
        columns.document_id,
        sa.null().label("score"),
        columns.collection_id,
        sa.cast(columns.payload, sa.Text),
        sa.cast(columns.metadata, sa.Text),
        columns.created_at,
        columns.updated_at,
        *(catalog.vector_text(documents, catalog.by_name[name]) for name in shown.vectors),
        *([_provenance(catalog, shown.vectors)] if shown.vectors else []),
        *([_present(catalog)] if shown.names else []),
        sa.cast(columns.acl, sa.Text) if catalog.has_access_lists and not catalog.restricted else sa.null(),
    ]


def _provenance(catalog: Catalog, names: Sequence[str]) -> sa.ColumnElement[Any]:
    """Which service made each of these vectors, of what; null of a caller's."""
    stored = catalog.documents.c.provenance
    columns = [sa.literal(catalog.by_name[name].column, sa.Text) for name in names]
    return array([sa.cast(stored.op("->")(column), sa.Text) for column in columns])


def _present(catalog: Catalog) -> sa.ColumnElement[Any]:
    """The names of the vectors that a document has, in the order of the configs; null for each that it has not."""
    documents, present = catalog.documents, []
    for config in catalog.vector_configs:
        if config.kind == "multi":
            side = catalog.side(config)
            has: sa.ColumnElement[bool] = sa.exists().where(side.c.document_id == documents.c.document_id)
        else:
            has = documents.c[config.column].is_not(None)
        present.append(sa.case((has, sa.literal(config.name, sa.Text))))
    return sa.cast(array(present), sa.ARRAY(sa.Text))


def document(row: Sequence[Any], shown: Shown) -> dict[str, Any]:
    """The document of a row of `columns`."""
    *row, acl = row
    names = row.pop() if shown.names else None
    made = row.pop() if shown.vectors else []
    found = hit(row, shown.vectors, [], shown.select)
    makers = zip(shown.vectors, made, strict=True)
    if by_service := {name: msgspec.Raw(text.encode()) for name, text in makers if text is not None}:
        found["_internal"]["provenance"] = by_service
    if acl is not None:
        found["_internal"]["_acl"] = msgspec.Raw(acl.encode())
    if names is not None:
        found["_vectors"] = [name for name in names if name is not None]
    return found


def hit(
    row: Sequence[Any],
    vectors: Sequence[str],
    warnings: list[str],
    select: Sequence[str] | None = None,
    fields: str | Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A document as answers show it: the payload's fields at the root, the system's keys, the whole payload.

    `fields` stand at the root in the payload's place, where stages of a pipeline have changed them.

    `row` is `(rank, document_id, score, collection_id, payload, metadata, created_at, updated_at, vectors…)`, JSON and
    vectors as text, which PostgreSQL writes so that it reads back to the same float32.
    """
    _rank, document_id, score, collection_id, payload, metadata, created_at, updated_at, *stored = row
    if select is not None:
        payload = selected(payload, select)
    root = payload if fields is None else fields
    document: dict[str, Any] = dict(_as_fields.decode(root) if isinstance(root, str) else root)
    if clash := SYSTEM_KEYS & document.keys():
        names = ", ".join(sorted(clash))
        warnings.append(f"The payload has system keys ({names}); at the root the system's win, see `payload`.")
    document["document_id"] = document_id
    document["collection_id"] = collection_id
    for name in ("score", "vectors", "_vectors"):
        document.pop(name, None)
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
    for the integer 0 and so lose its sign; and for sparse vectors, `{1:0.5,3:2}/9`, whose indices are from 1."""
    if not vector.startswith("{"):
        return msgspec.Raw(NEGATIVE_ZERO.sub("-0.0", vector).encode())
    pairs = [pair.split(":") for pair in vector[1 : vector.index("}")].split(",") if pair]
    indices = ",".join(str(int(index) - 1) for index, _ in pairs)
    values = ",".join(value for _, value in pairs)
    return msgspec.Raw(f'{{"indices":[{indices}],"values":[{values}]}}'.encode())


# What is selected

Tree = dict[str, Any]


def selected(payload: str, fields: Sequence[str]) -> str:
    """The payload with these fields alone (dotted paths; through arrays, those of their elements), to the digit."""
    tree: Tree = {}
    for field in sorted(fields, key=len):
        node: Tree | None = tree
        *inner, last = field.split(".")
        for key in inner:
            node = None if node is None else node.setdefault(key, {})
        if node is not None:  # else a shorter path has selected the whole already
            node.setdefault(last, None)
    return msgspec.json.encode(_narrow(msgspec.Raw(payload.encode()), tree)).decode()


def _narrow(raw: msgspec.Raw, tree: Tree | None) -> Any:
    if tree is None:
        return raw
    start = bytes(memoryview(raw)[:64]).lstrip()[:1]
    if start == b"{":
        fields = _as_fields.decode(raw)
        return {
            key: found
            for key, value in fields.items()
            if key in tree and (found := _narrow(value, tree[key])) is not None
        }
    if start == b"[":
        return [found for item in _as_items.decode(raw) if (found := _narrow(item, tree)) is not None]
    return None  # the path goes on, the value does not
