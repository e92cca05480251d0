"""Names of schemas and columns from names that users chose: readable where they can be, never alike, never special."""

import hashlib
import re
from collections.abc import Container, Iterator
from itertools import count

MAX_LENGTH = 63  # bytes, PostgreSQL's NAMEDATALEN - 1
PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
UNSAFE = re.compile(r"[^a-z0-9_]+")

RESERVED_SCHEMAS = frozenset({"public", "information_schema", "pgretrieve", "pgretrieve_queue"})
RESERVED_COLUMNS = frozenset(
    {
        "document_id",
        "collection_id",
        "payload",
        "metadata",
        "created_at",
        "updated_at",
        "provenance",
        "acl",
        "readers",
        "score",
        "rank",
    }
    # System columns of every table.
    | {"tableoid", "xmin", "xmax", "cmin", "cmax", "ctid"}
)


def sql_name(raw: str, reserved: frozenset[str], *, suffix_room: int = 0) -> str:
    """`raw` itself if it is a plain lower-case name, else a readable rest of it and eight characters of its hash.

    `suffix_room` bytes are left free for a suffix. Two different `raw` give different names: a name made here
    always ends in the hash of its origin, and a plain one that looks so is hashed in turn.
    """
    limit = MAX_LENGTH - suffix_room
    looks_made = re.search(r"_[0-9a-f]{8}$", raw)
    special = raw in reserved or raw.startswith("pg_")
    if PLAIN.fullmatch(raw) and len(raw) <= limit and not special and not looks_made:
        return raw
    digest = hashlib.sha256(raw.encode()).hexdigest()[:8]
    readable = UNSAFE.sub("_", raw.lower()).strip("_")
    if not readable or not readable[0].isalpha() or f"{readable}_".startswith("pg_"):
        readable = f"n_{readable}" if readable else "n"
    return f"{readable[: limit - 9]}_{digest}"


def names(raw: str, reserved: frozenset[str], *, suffix_room: int = 0) -> Iterator[str]:
    """Names for `raw`, the best first; eight characters of a hash can be met on purpose, so callers take a free one."""
    yield sql_name(raw, reserved, suffix_room=suffix_room)
    yield sql_name(raw, reserved | {raw}, suffix_room=suffix_room)
    for n in count(1):
        yield sql_name(f"{raw}\0{n}", reserved, suffix_room=suffix_room)


def free_name(raw: str, reserved: frozenset[str], taken: Container[str], *, suffix_room: int = 0) -> str:
    """The best of these that is not taken."""
    return next(name for name in names(raw, reserved, suffix_room=suffix_room) if name not in taken)
