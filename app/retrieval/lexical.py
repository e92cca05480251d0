"""Lexical search: which fields a search reads, whether the postings serve it, and the select that answers it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from app.retrieval.catalog import Catalog, LexicalField
from app.retrieval.conditions import quoted
from app.retrieval.plan import Binds, constant
from app.retrieval.searches.bm25 import Lexical, by_documents, by_postings

MOST_FIELDS = 64
# Every string of a document; strict, for lax paths find what arrays hold twice.
EVERY_STRING = 'strict $.** ? (@.type() == "string")'


def path_of(field: str) -> str:
    """A jsonpath of the strings at a dotted path into the payload, arrays opened."""
    return "$" + "".join(f".{quoted(key)}" for key in field.split(".")) + ' ? (@.type() == "string")'


def searched(catalog: Catalog, names: Sequence[str]) -> tuple[Sequence[LexicalField], bool]:
    """The fields that a search of these names reads, and whether the postings have all of them."""
    declared = {field.name: field for field in catalog.lexical_fields}
    if names:
        found = [declared.get(name) or LexicalField(-n, name, path_of(name)) for n, name in enumerate(names, start=1)]
        return found, catalog.lexical_ready and all(name in declared for name in names)
    if declared:
        return catalog.lexical_fields, catalog.lexical_ready
    return [LexicalField(0, "", EVERY_STRING)], False


def advice(catalog: Catalog, names: Sequence[str]) -> str | None:
    """Why a search of these fields reads every document, and what would help; None where the postings serve it."""
    fields, ready = searched(catalog, names)
    if ready:
        return None
    missing = [field.name for field in fields if field not in catalog.lexical_fields]
    if not missing:
        return "The lexical index is being built; until it is ready, lexical searches read every document."
    name = missing[0] or "<field>"
    example = msgspec.json.encode({"payload_indexes": [{"field_name": name, "type": "text"}]}).decode()
    return (
        "The lexical search reads every document: declare its text fields beside the payload indexes that there are, "
        f"PATCH /v1/namespaces/{catalog.namespace_id} {example}."
    )


def lexical_search(catalog: Catalog, asked: Lexical, binds: Binds, hint: str) -> sa.Select[Any]:
    """The select of `document_id, score`, best first, equal scores by their ids; `hint` names parameters and CTEs."""
    fields, ready = searched(catalog, asked.fields)
    found = (by_postings if ready else by_documents)(catalog, asked, fields, binds, hint)
    best = found.subquery("best")
    rows = sa.select(best.c.document_id, best.c.score).order_by(best.c.score.desc(), best.c.document_id)
    return rows.limit(constant(asked.top_k))
