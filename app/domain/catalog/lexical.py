"""The lexical index of a namespace: its declared text fields, and postings that triggers keep as documents change."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import ddl
from app.db.statements import as_json, statement
from app.errors import Problems
from app.jobs import queue
from app.retrieval.catalog import Catalog, LexicalField
from app.retrieval.lexical import path_of

# Text search configurations that PostgreSQL 16 has.
# fmt: off
LANGUAGES = frozenset({
    "simple", "arabic", "armenian", "basque", "catalan", "danish", "dutch", "english", "finnish", "french", "german",
    "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian",
    "portuguese", "romanian", "russian", "serbian", "spanish", "swedish", "tamil", "turkish", "yiddish",
})
# fmt: on
TOKENIZERS = {"word": "english", "multilingual": "simple"}
OPTIONS = frozenset({"type", "language", "tokenizer", "lowercase", "min_token_len", "max_token_len"})
LONGEST = 2_047
# The words of so few documents are found within the request (0.2 ms each), those of more by a job, in such batches.
BATCH = 2_000


def check_options(field_schema: Any, location: tuple[str | int, ...], problems: Problems) -> None:
    """Find everything that is wrong with the options of a text field."""
    options = field_schema if field_schema is not None else {}
    if not isinstance(options, dict):
        problems.add(location, "bad_type", "The options of a text index are an object.")
        return
    for name in sorted(options.keys() - OPTIONS):
        message = f"A text index has no option {name!r}; the options are {', '.join(sorted(OPTIONS))}."
        problems.add((*location, name), "extra_forbidden", message)
    if options.get("language") is not None and options["language"] not in LANGUAGES:
        message = f"Unknown language {options['language']!r}; the languages are {', '.join(sorted(LANGUAGES))}."
        problems.add((*location, "language"), "unknown_language", message)
    if options.get("tokenizer") is not None and options["tokenizer"] not in TOKENIZERS:
        message = (
            f"The tokenizer {options['tokenizer']!r} is not offered; use 'word', or 'multilingual' for texts of "
            "several languages. A query finds words by their beginning with `word*`."
        )
        problems.add((*location, "tokenizer"), "not_offered", message)
    if options.get("lowercase") is False:
        message = "Words are found in any case; leave `lowercase` out."
        problems.add((*location, "lowercase"), "not_offered", message)
    for name in ("min_token_len", "max_token_len"):
        if (value := options.get(name)) is not None and (type(value) is not int or not 1 <= value <= LONGEST):
            problems.add((*location, name), "out_of_range", f"{name} is from 1 to {LONGEST:,}, not {value!r}.")


def fields_of(declared: Mapping[str, Any]) -> list[LexicalField]:
    """The fields of checked declarations: of each text field its name and options."""
    found = []
    for n, name in enumerate(sorted(declared), start=1):
        options = declared[name] or {}
        language = options.get("language") or TOKENIZERS[options.get("tokenizer") or "word"]
        shortest, longest = options.get("min_token_len") or 1, options.get("max_token_len") or LONGEST
        found.append(LexicalField(n, name, path_of(name), language, shortest, longest))
    return found


async def declare(conn: AsyncConnection, namespace_id: str, fields: Sequence[LexicalField]) -> None:
    """Index these fields and no others. What is stored is indexed now or by a job, what is written later at once.

    The caller holds the namespace's lock, and gives the namespace a new version.
    """
    row = (await conn.execute(statement("find_lexical_index"), {"namespace_id": namespace_id})).one()
    if list(fields) == msgspec.json.decode(row.fields, type=list[LexicalField]):
        return
    if fields:
        await _create(conn, namespace_id, row.schema_name, fields)
    else:
        await conn.execute(statement("drop_lexical_index"), {"namespace_id": namespace_id, "schema": row.schema_name})


async def _create(conn: AsyncConnection, namespace_id: str, schema: str, fields: Sequence[LexicalField]) -> None:
    binds = {"namespace_id": namespace_id, "schema": schema, "fields": as_json(list(fields))}
    await conn.execute(statement("create_lexical_index"), binds)
    await ddl.hand_over(conn, schema)
    batch = {"schema": schema, "after": "", "most": BATCH}
    last = (await conn.execute(statement("fill_lexical_index"), batch)).scalar_one()
    more = {**batch, "after": last, "most": 1}
    if last is None or (await conn.execute(statement("fill_lexical_index"), more)).scalar_one() is None:
        await conn.execute(statement("finish_lexical_index"), {"namespace_id": namespace_id})
    else:
        await _defer(conn, namespace_id)


async def _defer(conn: AsyncConnection, namespace_id: str) -> None:
    binds = {"namespace_id": namespace_id}
    await queue.defer(conn, "build_lexical_index", binds, lock=f"build_lexical_index:{namespace_id}")


async def ensure(
    conn: AsyncConnection, catalog: Catalog, *, rebuild: bool
) -> Literal["ensured", "rebuilt", "building"]:
    """Build the index anew where that is asked for, and have a job go on where it is not complete."""
    namespace_id = catalog.namespace_id
    if rebuild and catalog.lexical_fields:
        await _create(conn, namespace_id, catalog.schema, catalog.lexical_fields)
        await conn.execute(statement("bump_namespace"), {"namespace_id": namespace_id})
        return "rebuilt"
    if catalog.lexical_fields and not catalog.lexical_ready:
        await _defer(conn, namespace_id)
        return "building"
    return "ensured"


async def build(conn: AsyncConnection, namespace_id: str) -> bool:
    """Add what was stored before the index, batch by batch, on a connection in autocommit; then searches use it.

    False where the index was dropped or declared anew meanwhile: another job builds it.
    """
    row = (await conn.execute(statement("find_lexical_index"), {"namespace_id": namespace_id})).one_or_none()
    if row is None or row.created_at is None:
        return False
    batch = {"schema": row.schema_name, "after": "", "most": BATCH}
    while batch["after"] is not None:
        batch["after"] = (await conn.execute(statement("fill_lexical_index"), batch)).scalar_one()
    await conn.execute(statement("merge_lexical_index"), {"schema": row.schema_name})
    binds = {"namespace_id": namespace_id, "created_at": row.created_at}
    return (await conn.execute(statement("open_lexical_index"), binds)).rowcount > 0


async def merge_due(conn: AsyncConnection) -> list[str]:
    """Merge the postings that writers appended, where there are many, on a connection in autocommit."""
    merged = []
    for schema in (await conn.execute(statement("lexical_schemas"))).scalars().all():
        if (await conn.execute(statement("lexical_index_is_due"), {"schema": schema})).scalar_one():
            await conn.execute(statement("merge_lexical_index"), {"schema": schema})
            merged.append(schema)
    return merged
