"""What tests read back, and how they await what another backend does."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

STATE = """
    SELECT n.mode, n.version,
        (SELECT array_agg(c.name ORDER BY position) FROM pgretrieve.vector_configs c
            WHERE c.namespace_id = n.namespace_id),
        (SELECT jsonb_object_agg(name, inference_service) FROM pgretrieve.vector_inference_map m
            WHERE m.namespace_id = n.namespace_id),
        (SELECT count(*) FROM pgretrieve.promotions p WHERE p.namespace_id = n.namespace_id),
        (SELECT count(*) FROM pgretrieve_queue.procrastinate_jobs j
            WHERE j.args->>'namespace_id' = n.namespace_id),
        (SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped
            AND attrelid = (quote_ident(n.schema_name) || '.documents')::regclass)
    FROM pgretrieve.namespaces n WHERE n.namespace_id = %s
"""


def state(conninfo: str, namespace: str) -> tuple[Any, ...]:
    """All that a promotion can change: mode, version, configs, map, number of audit rows and of jobs, columns."""
    with psycopg.connect(conninfo) as conn:
        found = conn.execute(STATE, [namespace]).fetchone()
    assert found is not None
    return tuple(found)


def rows(conninfo: str, namespace: str) -> list[tuple[Any, ...]]:
    """Where each document lies and which transaction wrote it: equal only if no row was touched."""
    with psycopg.connect(conninfo) as conn:
        query = sql.SQL("SELECT document_id, ctid::text, xmin::text FROM {} ORDER BY 1")
        return conn.execute(query.format(sql.Identifier(namespace, "documents"))).fetchall()


# Written beside the requests, whenever a key was used.
BESIDE = ("api_keys",)
TABLES = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname IN ('pgretrieve', 'pgretrieve_queue', %s) ORDER BY 1, 2
"""
PHYSICAL = """
    SELECT c.relname, c.relfilenode, c.ctid::text, c.xmin::text, a.attname, a.xmin::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE n.nspname = %s ORDER BY c.relname, a.attnum
"""


def everything(conninfo: str, schema: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the catalog, of the queue and of a namespace, and what PostgreSQL's catalog has of its schema."""
    with psycopg.connect(conninfo) as conn:
        found = {"physical": conn.execute(PHYSICAL, [schema]).fetchall()}
        for name, table in conn.execute(TABLES, [schema]).fetchall():
            if table not in BESIDE:
                query = sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(sql.Identifier(name, table))
                found[f"{name}.{table}"] = conn.execute(query).fetchall()
    return found


async def blocked(conninfo: str, holder: int, count: int = 1) -> list[int]:
    """Wait until `count` backends wait for a lock of the backend `holder`; their process ids."""
    query = "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    deadline = time.monotonic() + 10
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as conn:
        while time.monotonic() < deadline:
            found = [pid for (pid,) in await (await conn.execute(query, [holder])).fetchall()]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.002)  # PostgreSQL tells no one that a backend has begun to wait
    raise AssertionError(f"{len(found)} backends wait for the lock, not {count}")


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for what another process does and tells no one."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


def kill(conninfo: str, *pids: int) -> None:
    """End these backends; returns when they are gone."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        for pid in pids:
            assert conn.execute("SELECT pg_terminate_backend(%s, 10000)", [pid]).fetchone() == (True,)
