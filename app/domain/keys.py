"""API keys, kept as hashes only. A key is 32 random bytes, so that a plain SHA-256 cannot be guessed backwards."""

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.statements import statement

ROOT = "root"
EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from: the key's id (never the key) and what it may do."""

    key_id: str
    scopes: frozenset[str]


def new_key() -> str:
    return f"pgr_{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


async def find(conn: AsyncConnection, hashed: bytes) -> Principal | None:
    """The key of that hash, if it is neither revoked nor over."""
    row = (await conn.execute(statement("find_key"), {"key_hash": hashed})).one_or_none()
    return Principal(row.key_id, frozenset(row.scopes)) if row else None


async def set_root(conn: AsyncConnection, key: str) -> None:
    """Make this the root key; the one before it ends."""
    values = {"key_id": ROOT, "key_hash": hash_key(key), "name": "root key", "scopes": [EVERYTHING]}
    await conn.execute(statement("put_key"), values)


def root_key_file(data_dir: Path) -> Path:
    return data_dir / "root.key"


def kept_root_key(data_dir: Path) -> tuple[str, Path]:
    """The root key of this data directory, made at the first start, in a file that only its owner reads."""
    path = root_key_file(data_dir)
    if path.exists():
        return path.read_text(encoding="ascii").strip(), path
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = new_key()
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(f"{key}\n", encoding="ascii")
    return key, path
