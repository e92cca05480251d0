"""Names made to hurt: never a collision, never an injection, nothing touched outside a namespace's own schema."""

import string
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from app.db.identifiers import RESERVED_COLUMNS, RESERVED_SCHEMAS, sql_name
from app.domain.catalog.namespaces import TEMPLATED
from tests.http import Api, document, feature_search, search

ANYTHING = """
    SELECT n.nspname, c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT IN (SELECT schema_name FROM pgretrieve.namespaces)
        AND n.nspname !~ '^(pg_|pgretrieve|information_schema)' ORDER BY 1, 2
"""
WORDS = [
    "select",
    "user",
    "public",
    "Public",
    "information_schema",
    "pgretrieve",
    "pg_catalog",
    "pg_temp_1",
    "documents",
]
TEXTS = [
    'a"; DROP SCHEMA pgretrieve CASCADE; --',
    "'; DROP TABLE documents; --",
    "a\\",
    '""',
    "%s",
    "%(ids)s",
    ":bind",
    "$1",
    "{INPUT.v}",
    "}}",
    "mixpeek://a@v1/b",
    "a.b",
    "ctid",
    "document_id",
    "collection",
    "pkey",
    "a_hnsw",
    "\u202egnp",
    "é",
    "e\u0301",
    "İ",
    "ß",
    "SS",
    "ſ",
    "🦉",
]


def cousins(raw: str) -> list[str]:
    """What other names sanitise like."""
    return [raw, raw.swapcase(), raw.replace("_", "-"), raw.replace("-", "_"), sql_name(raw, RESERVED_SCHEMAS)]


def families(one: st.SearchStrategy[str], longest: int) -> st.SearchStrategy[list[str]]:
    """Two to four names, some of them alike."""
    many = st.lists(one, min_size=1, max_size=2).map(lambda raws: [name for raw in raws for name in cousins(raw)])
    return many.map(lambda names: [n for n in dict.fromkeys(names) if 1 <= len(n) <= longest][:4])


ids = families(
    st.one_of(
        st.sampled_from(WORDS),
        st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=128).filter(
            lambda s: s[0] not in "_-"
        ),
        st.integers(1, 128).map(lambda n: "x" * n),
    ).filter(lambda name: name not in ("list", "standalone", "stats")),
    128,
)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=128)
vectors = families(
    st.one_of(st.sampled_from(TEXTS + WORDS), texts.filter(lambda text: not TEMPLATED.search(text))), 128
)


@contextmanager
def a_users_own(conninfo: str, name: str) -> Iterator[psycopg.Connection[Any]]:
    """A schema that was there before, with a table; nothing but what namespaces own may differ at the end."""
    schema = sql.Identifier(name)
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
        conn.execute(sql.SQL("CREATE TABLE {}.documents AS SELECT 'mine' AS document_id").format(schema))
        before = conn.execute(ANYTHING).fetchall()
        yield conn
        assert conn.execute(ANYTHING).fetchall() == before
        rows = conn.execute(sql.SQL("SELECT document_id FROM {}.documents").format(schema)).fetchall()
        assert rows == [("mine",)]
        conn.execute(sql.SQL("DROP TABLE {}.documents").format(schema))
        if name != "public":
            conn.execute(sql.SQL("DROP SCHEMA {}").format(schema))


def free(name: str) -> bool:
    return (
        len(name) < 64
        and not name.startswith("pg_")
        and name not in ("information_schema", "pgretrieve", "pgretrieve_queue")
    )


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=ids, names=vectors)
@example(ids=["public", "Public", "PUBLIC"], names=["a_b", "a-b", "A_B", "a b"])
@example(ids=["x" * 128, "x" * 127], names=TEXTS[:12])
@example(ids=["pg_catalog", "pgretrieve"], names=TEXTS[12:])
def test_hostile_names_live_beside_each_other(api: Api, conninfo: str, ids: list[str], names: list[str]) -> None:
    made: list[str] = []
    with a_users_own(conninfo, ids[0] if free(ids[0]) else "users_own") as conn:
        try:
            for namespace_id in ids:
                configs = [{"name": name, "dimension": 2} for name in names[1:]]
                api("POST", "/namespaces/standalone", {"namespace_id": namespace_id, "vector_configs": configs})
                made.append(namespace_id)
            query = "SELECT schema_name FROM pgretrieve.namespaces WHERE namespace_id = ANY(%s)"
            schemas = [schema for (schema,) in conn.execute(query, [ids])]
            assert len(set(schemas)) == len(ids)
            for n, namespace_id in enumerate(ids):
                live(api, namespace_id, names, n)
        finally:
            for namespace_id in made:
                api("DELETE", f"/namespaces/{namespace_id}")


def live(api: Api, namespace_id: str, names: list[str], n: int) -> None:
    """Written, searched, promoted and read: each vector is found by its own name, and only there."""
    here = {"X-Namespace": namespace_id}
    first, *others = names
    added = [{"name": first, "dimension": 2}]
    api("POST", f"/namespaces/{namespace_id}/promote", {"add_vectors": added})
    given = {name: [float(m + 1), float(n + 1)] for m, name in enumerate([*others, first])}
    documents = [document(f"d{m}", {name: vector}) for m, (name, vector) in enumerate(given.items())]
    api("POST", f"/namespaces/{namespace_id}/documents/upsert", {"documents": [*documents, document("all", given)]})
    assert api("GET", "/documents/all?return_vectors=true", headers=here)["vectors"] == given
    for m, (name, vector) in enumerate(given.items()):
        near = {"retriever_name": name, "stages": [feature_search(search(name, vector))]}
        retriever = api("POST", "/retrievers", near, headers=here)
        assert retriever["retriever_name"] == name
        found = api("POST", f"/retrievers/{retriever['retriever_id']}/execute", {}, headers=here)["documents"]
        assert {hit["document_id"] for hit in found} == {f"d{m}", "all"}
        assert all(hit["score"] == pytest.approx(1) for hit in found)
    shown = api("GET", f"/namespaces/{namespace_id}")
    assert [config["name"] for config in shown["vector_configs"]] == [*others, first]


printable = texts.filter(lambda s: s.isprintable() and s == s.strip() and "/" not in s and s not in (".", ".."))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.one_of(printable, st.sampled_from([t for t in TEXTS if t.isprintable() and "/" not in t])))
def test_names_of_namespaces_may_be_any_printable_text(api: Api, name: str) -> None:
    body = {"namespace_id": api.namespace, "namespace_name": name, "vector_configs": []}
    if name in ("list", "standalone", "stats"):
        return
    api("POST", "/namespaces/standalone", body)
    try:
        escaped = "".join(f"%{byte:02X}" for byte in name.encode())
        assert api("GET", f"/namespaces/{escaped}")["namespace_id"] == api.namespace
        api("POST", f"/namespaces/{escaped}/documents/upsert", {"documents": [document("d")]})
        sent = {b"Authorization": api.authorization.encode(), b"X-Namespace": name.encode()}
        assert api.http.get("/documents/d", headers=sent).json()["document_id"] == "d"
        found = api("POST", "/namespaces/list", {"filters": {"namespace_name": name}, "case_sensitive": True})
        assert [namespace["namespace_id"] for namespace in found["results"]] == [api.namespace]
        found = api("POST", "/namespaces/list", {"search": name, "case_sensitive": True, "limit": 1000})
        assert api.namespace in {namespace["namespace_id"] for namespace in found["results"]}
    finally:
        api("DELETE", f"/namespaces/{api.namespace}")


def meeting(reserved: frozenset[str]) -> tuple[str, str]:
    """Two names of 128 characters that give the same identifier: 32 bits of hash are met after some 80,000 tries."""
    seen: dict[str, str] = {}
    for n in count():
        raw = f"{'a' * 110}-{n:017d}"
        if (other := seen.setdefault(sql_name(raw, reserved), raw)) != raw:
            return other, raw
    raise AssertionError


def test_identifiers_that_meet_by_their_hash_are_told_apart(api: Api, conninfo: str) -> None:
    ids, names = meeting(RESERVED_SCHEMAS), meeting(RESERVED_COLUMNS)
    with a_users_own(conninfo, sql_name(ids[0], RESERVED_SCHEMAS)):
        for n, namespace_id in enumerate(ids):
            configs = [{"name": name, "dimension": 2} for name in names]
            api("POST", "/namespaces/standalone", {"namespace_id": namespace_id, "vector_configs": configs})
            live(api, namespace_id, ["c", *names], n)
            live_on_write(api, list(names))
        for namespace_id in ids:
            api("DELETE", f"/namespaces/{namespace_id}")


def live_on_write(api: Api, names: list[str]) -> None:
    """The same names, found in what is written."""
    api("POST", "/namespaces/standalone", {"namespace_id": api.namespace})
    for name in names:
        api.upsert([document(name[-17:], {name: [1, 2]})])
    for name in names:
        api.retriever("near", feature_search(search(name, [1, 2])))
        assert api.ids("near") == [name[-17:]]
    api("DELETE", f"/namespaces/{api.namespace}")


@pytest.mark.parametrize("kind", ["dense", "multi"])
def test_tables_and_indexes_of_a_namespace_share_one_space_of_names(api: Api, kind: str) -> None:
    """The table of a multi-vector `pkey` would be the documents' own primary key, `a_hnsw` the index of `a`."""
    api("POST", "/namespaces/standalone", {"namespace_id": api.namespace})
    vectors: dict[str, Any] = {"a": [1.0, 2.0], "pkey": [[1.0, 2.0]], "collection": [[1.0]], "b": [[1.0, 2.0]]}
    vectors |= {"a_hnsw": [[2.0, 3.0]], "b_pkey": [[1.0]], "c_hnsw": [[1.0]], "c": [1.0]}
    if kind == "dense":
        vectors = dict(reversed(vectors.items()))
    for name, vector in vectors.items():
        api.upsert([document("d", {name: vector})])
        assert api("GET", "/documents/d?return_vectors=true")["vectors"] == {name: vector}
