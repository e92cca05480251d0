"""Files hold what the database holds, to the bit: exported, imported and compared; and imports are upserts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncEngine

from app import moving
from app.db.engine import connection, transaction
from app.domain.documents import exporting
from app.moving import jsonl
from app.settings import Settings
from tests.http import Api, document
from tests.moving.running import run

CONFIGS = [
    {"name": "dense", "dimension": 3, "metric": "dot"},
    {"name": "Sparse one", "dimension": 50, "metric": "dot", "kind": "sparse"},
    {"name": "many", "dimension": 2, "metric": "euclidean", "kind": "multi"},
]
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.fixed_dictionaries(
    {},
    optional={
        "dense": st.lists(floats, min_size=3, max_size=3),
        "Sparse one": st.dictionaries(st.integers(0, 49), floats.filter(bool), max_size=5).map(
            lambda found: {"indices": list(found), "values": list(found.values())}
        ),
        "many": st.lists(st.lists(floats, min_size=2, max_size=2), min_size=1, max_size=3),
    },
)
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
payloads = st.dictionaries(text, st.none() | st.booleans() | st.integers(-(2**80), 2**80) | text, max_size=3)
documents = st.lists(
    st.tuples(text.filter(bool), vectors, payloads, payloads), max_size=6, unique_by=lambda document: document[0]
)


def stored(conninfo: str, namespace: str, *, tables: tuple[str, ...] = ("documents", "documents_many")) -> list[Any]:
    """Every table of a namespace as PostgreSQL prints it, but for times."""
    found = []
    with psycopg.connect(conninfo) as conn:
        for table in tables:
            query = sql.SQL("SELECT to_jsonb(t) - 'created_at' - 'updated_at' FROM {} t ORDER BY 1")
            found += conn.execute(query.format(sql.Identifier(namespace, table))).fetchall()
    return found


@pytest.mark.parametrize("form", moving.FORMATS)
def test_what_is_exported_and_imported_is_the_same_to_the_bit(
    api: Api, conninfo: str, tmp_path: Path, form: str
) -> None:
    source, copy = (f"{api.namespace}_{n}" for n in ("source", "copy"))
    for namespace in (source, copy):
        api("POST", "/namespaces/standalone", {"namespace_id": namespace, "vector_configs": CONFIGS})
    file = tmp_path / f"documents.{form}"

    @examples(max_examples=8, suppress_health_check=list(HealthCheck))
    @given(documents)
    def every(given: list[Any]) -> None:
        with psycopg.connect(conninfo) as conn:
            for namespace in (source, copy):
                conn.execute(sql.SQL("TRUNCATE {} CASCADE").format(sql.Identifier(namespace, "documents")))
        sent = [
            {"document_id": i, "vectors": v, "payload": p, "metadata": m}
            | ({"acl": {"read": [repr(i)[:200]]}} if v else {})
            for i, v, p, m in given
        ]
        if sent:
            body = {"documents": sent, "collection_id": "of its own"}
            api("POST", f"/namespaces/{source}/documents/upsert", body)
        assert run(conninfo, "export", str(file), "--namespace", source).exit_code == 0
        done = run(conninfo, "import", str(file), "--namespace", copy, "--restart", "--no-wait")
        assert done.exit_code == 0, done.output
        assert bits(conninfo, copy) == bits(conninfo, source)

    every()


def bits(conninfo: str, namespace: str) -> list[Any]:
    """Every table of a namespace, vectors in their binary form."""
    with psycopg.connect(conninfo) as conn:
        rows = []
        for table, columns in (
            (
                "documents",
                ("document_id", "collection_id", "payload", "metadata", "dense", "provenance", "acl", "readers"),
            ),
            ("documents_many", ("document_id", "position", "vector")),
        ):
            names = sql.SQL(", ").join(map(sql.Identifier, columns))
            query = sql.SQL("SELECT {} FROM {} ORDER BY 1, 2").format(names, sql.Identifier(namespace, table))
            rows += conn.execute(query, binary=True).fetchall()
        (sparse,) = conn.execute(
            "SELECT column_name FROM pgretrieve.vector_configs WHERE namespace_id = %s AND kind = 'sparse'", [namespace]
        ).fetchone() or ("",)
        query = sql.SQL("SELECT document_id, {} FROM {} ORDER BY 1").format(
            sql.Identifier(sparse), sql.Identifier(namespace, "documents")
        )
        return rows + conn.execute(query, binary=True).fetchall()


def lines(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return path


def test_an_import_is_an_upsert(api: Api, conninfo: str, tmp_path: Path) -> None:
    """A twin that is upserted has the same rows, postings and work, whatever was there before."""
    texts = {"field_name": "title", "type": "text"}
    before = [document(f"d{n}", {"v": [1, n]}, title=f"red house {n}") for n in range(4)]
    after = [document("d0", title="red house 0"), document("d1", {"v": [5, 5]}, title="blue")]
    after += [document("d2", title="green"), document("new", title="new words")]
    for name in ("upserted", "imported"):
        config = {"name": "v", "dimension": 2, "metric": "dot", "kind": "dense"}
        api("POST", "/namespaces/standalone", {"namespace_id": f"{api.namespace}_{name}", "vector_configs": [config]})
        api("PATCH", f"/namespaces/{api.namespace}_{name}", {"payload_indexes": [texts]})
        service = {"name": "t", "dimension": 384, "inference_service": "minilm_l6_v2", "source_field": "title"}
        api("POST", f"/namespaces/{api.namespace}_{name}/promote", {"add_vectors": [service]})
    upserted, imported = f"{api.namespace}_upserted", f"{api.namespace}_imported"
    for n, batch in enumerate((before, after)):
        api("POST", f"/namespaces/{upserted}/documents/upsert", {"documents": batch})
        file = lines(tmp_path / f"{n}.jsonl", batch)
        done = run(conninfo, "import", str(file), "--namespace", imported, "--no-wait")
        assert done.exit_code == 0, done.output
    assert invariants(conninfo, imported) == invariants(conninfo, upserted)
    assert len(invariants(conninfo, imported)["work"]) == 5


def invariants(conninfo: str, namespace: str) -> dict[str, list[Any]]:
    queries = {
        "documents": "SELECT to_jsonb(d) - 'created_at' - 'updated_at' FROM {}.documents d ORDER BY document_id",
        "words": "SELECT document_id, field, length, words::text FROM {}.lexical_documents ORDER BY 1",
        "totals": "SELECT field, sum(documents), sum(lexemes) FROM {}.lexical_totals GROUP BY field",
    }
    with psycopg.connect(conninfo) as conn:
        found = {
            name: conn.execute(sql.SQL(query).format(sql.Identifier(namespace))).fetchall()
            for name, query in queries.items()
        }
        work = "SELECT kind, target, subject FROM pgretrieve.work WHERE namespace_id = %s ORDER BY 1, 2, 3"
        return {**found, "work": conn.execute(work, [namespace]).fetchall()}


def test_everything_that_is_wrong_is_told_by_its_row(api: Api, conninfo: str, tmp_path: Path) -> None:
    api.standalone(("v", 2))
    api.upsert([document("there", {"v": [1, 0]})], collection_id="another")
    file = tmp_path / "bad.jsonl"
    bad = [
        json.dumps(document("fine", {"v": [1, 0]})),
        "{broken",
        json.dumps(document("zero", {"v": [0, 0]})),
        json.dumps(document("", {"v": [1, 2, 3], "w": [1]})),
        json.dumps({**document("nul", {}), "payload": {"a": "\0"}}),
        json.dumps({**document("list", {}), "payload": [1]}),
        json.dumps(document("there", {"v": [1, 0]})),
        json.dumps(document("fine", {"v": [0, 1]}, last=True)),
    ]
    file.write_text("\n".join(bad))
    strict = run(conninfo, "import", str(file), "--namespace", api.namespace)
    assert strict.exit_code == 1
    for said in ("Row 2", "Row 3 ('zero')", "Row 4", "3 dimensions", "'w'", "Row 5", "Row 6"):
        assert said in strict.output
    assert "fine" not in str(stored(conninfo, api.namespace, tables=("documents",)))
    lenient = run(conninfo, "import", str(file), "--namespace", api.namespace, "--skip-bad", "--json")
    told = json.loads(lenient.stdout)
    assert (told["stored"], {p["number"] for p in told["problems"]}) == (1, {2, 3, 4, 5, 6, 7})
    assert api("GET", f"/namespaces/{api.namespace}/documents/fine")["last"] is True


def test_a_foreign_file_is_mapped(api: Api, conninfo: str, tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    api.standalone(("v", 2, "dot"))
    table = pa.table({"id": [7, 8], "emb": pa.array([[1.5, 2.0], None], pa.list_(pa.float16())), "title": ["a", "b"]})
    pq.write_table(table, tmp_path / "foreign.parquet")
    options = ("--namespace", api.namespace, "--id", "id", "--vector", "v=emb")
    done = run(conninfo, "import", str(tmp_path / "foreign.parquet"), *options)
    assert done.exit_code == 0, done.output
    rows = [row[0] for row in stored(conninfo, api.namespace, tables=("documents",))]
    assert [(row["document_id"], row["payload"], row["v"]) for row in rows] == [
        ("8", {"title": "b"}, None),
        ("7", {"title": "a"}, "[1.5,2]"),
    ]
    wrong = run(conninfo, "import", str(tmp_path / "foreign.parquet"), "--namespace", api.namespace, "--id", "nope")
    assert wrong.exit_code == 1
    assert "no column 'nope'" in wrong.output


def test_indexes_are_built_after_a_load_and_searched(api: Api, conninfo: str, tmp_path: Path) -> None:
    api.standalone(("v", 2))
    file = lines(tmp_path / "many.jsonl", [document(f"d{n}", {"v": [1, n]}) for n in range(200)])
    done = run(conninfo, "import", str(file), "--namespace", api.namespace, "--indexes", "after")
    assert done.exit_code == 0, done.output
    assert "Index 'v': ready" in done.output
    assert "ready" in str(api("GET", f"/namespaces/{api.namespace}/vector-indexes"))
    with psycopg.connect(conninfo) as conn:
        found = conn.execute(
            "SELECT i.indisvalid FROM pg_index i WHERE indrelid = %s::regclass AND indexrelid::regclass::text LIKE %s",
            [f"{api.namespace}.documents", "%hnsw%"],
        ).fetchall()
    assert found == [(True,)]


KILLED = """
import sys, os, signal
from app.domain.documents import importing
store, count = importing._store, 0
async def one(*arguments):
    global count
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    await store(*arguments)
importing._store = one
from app.moving import jsonl
jsonl.read.__defaults__ = (10, 1)
from app.cli import main
main(sys.argv[1:])
"""


def test_an_import_that_was_killed_goes_on_where_it_was(api: Api, conninfo: str, tmp_path: Path) -> None:
    api.standalone(("v", 2))
    file = lines(tmp_path / "many.jsonl", [document(f"d{n:03}", {"v": [1, n]}) for n in range(55)])
    arguments = ["import", str(file), "--namespace", api.namespace, "--no-wait"]
    environment = {**os.environ, "DATABASE_URL": conninfo}
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(stored(conninfo, api.namespace, tables=("documents",))) == 20
    with psycopg.connect(conninfo) as conn:  # stored once: what goes on does not store it again
        conn.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(api.namespace, "documents")))
    done = run(conninfo, *arguments)
    assert done.exit_code == 0, done.output
    left = [row[0]["document_id"] for row in stored(conninfo, api.namespace, tables=("documents",))]
    assert left == [f"d{n:03}" for n in range(20, 55)]
    assert "55 documents stored" in done.output
    assert run(conninfo, *arguments).output.startswith("55 documents stored")  # a new import of the same file
    assert len(stored(conninfo, api.namespace, tables=("documents",))) == 55


def test_a_stream_of_lines_is_stored_while_it_comes(api: Api) -> None:
    api.standalone(("v", 2))
    good = [json.dumps(document(f"d{n:04}", {"v": [1, n]})) for n in range(1_200)]
    body = "\n".join([*good[:700], "{broken", json.dumps(document("zero", {"v": [0, 0]})), *good[700:]]).encode()
    headers = {"Authorization": api.authorization, "Content-Type": "application/x-ndjson"}
    path = f"/namespaces/{api.namespace}/documents/import"
    pieces = (body[at : at + 10_000] for at in range(0, len(body), 10_000))
    answer = api.http.post(path, content=pieces, headers=headers, params={"collection_id": "of its own"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["lines"], told["stored"], told["problem_count"]) == (1_202, 1_200, 2)
    assert [(p["line"], p["type"]) for p in told["problems"]] == [(701, "unreadable_line"), (702, "bad_vector")]
    assert api("GET", "/collections/of its own/documents/d1199")["document_id"] == "d1199"
    assert api.http.post("/namespaces/no_such/documents/import", content=b"", headers=headers).status_code == 404


def test_what_is_exported_over_http_is_imported_to_the_bit(api: Api, conninfo: str) -> None:
    source, copy = (f"{api.namespace}_{n}" for n in ("source", "copy"))
    for namespace in (source, copy):
        api("POST", "/namespaces/standalone", {"namespace_id": namespace, "vector_configs": CONFIGS})
    every = {"dense": [0.1, 1e-45, -3.4e38], "Sparse one": {"indices": [7, 3], "values": [0.1, -2]}}
    sent = [document(f"d{n:04}", {**every, "many": [[0.3, n], [n, 0.7]]}, n=2**70 + n) for n in range(450)]
    for collection, some in (("one", sent[:420]), ("another", [*sent[420:], document("bare", {})])):
        body = {"documents": some, "collection_id": f"{source}_{collection}"}
        api("POST", f"/namespaces/{source}/documents/upsert", body)
    path, headers = f"/namespaces/{source}/documents/export", {"Authorization": api.authorization}
    with api.http.stream("GET", path, headers=headers) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        told = api.http.post(
            f"/namespaces/{copy}/documents/import", content=answer.iter_bytes(), headers=headers
        ).json()
    assert (told["stored"], told["problems"]) == (451, [])
    assert bits(conninfo, copy) == bits(conninfo, source)
    of_one = {"collection_id": f"{source}_another", "return_vectors": "false"}
    found = [json.loads(line) for line in api.http.get(path, headers=headers, params=of_one).iter_lines()]
    assert [each["document_id"] for each in found] == ["bare", *(f"d{n:04}" for n in range(420, 450))]
    assert not any(each["vectors"] for each in found)
    assert api.http.get("/namespaces/no_such/documents/export", headers=headers).status_code == 404


def test_a_document_called_export_can_still_be_read(api: Api) -> None:
    api.standalone(("v", 2))
    api.upsert([document("export", {"v": [1, 0]}, title="mine")])
    headers = {"Authorization": api.authorization, "X-Namespace": api.namespace}
    assert api.http.get("/documents/export", headers=headers).json()["title"] == "mine"


def test_an_export_that_broke_off_goes_on(
    api: Api, conninfo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.standalone(("v", 2))
    api.upsert([document(f"d{n:03}", {"v": [1, n]}, title="ä") for n in range(50)])
    monkeypatch.setattr(exporting.pages, "__kwdefaults__", {**(exporting.pages.__kwdefaults__ or {}), "page": 20})
    file, part = tmp_path / "all.jsonl", tmp_path / "all.jsonl.part"
    command = ["export", str(file), "--namespace", api.namespace]
    assert run(conninfo, *command).exit_code == 0
    whole = file.read_bytes()
    file.unlink()

    def full(self: Any, rows: Any) -> None:
        if rows.ids[0] == "d040":
            self.file.write(b'{"document_id":"d040","vec')
            raise OSError("No space left on device")
        add(self, rows)

    add = jsonl.Writer.add
    with monkeypatch.context() as patched:
        patched.setattr(jsonl.Writer, "add", full)
        broken = run(conninfo, *command)
    assert isinstance(broken.exception, OSError)
    assert "--resume" in broken.output
    assert not file.exists()
    assert part.read_bytes().count(b"\n") == 40
    done = run(conninfo, *command, "--resume")
    assert "50 documents" in done.output
    assert file.read_bytes() == whole
    assert not part.exists()
    assert run(conninfo, *command, "--resume").exit_code == 2
    assert run(conninfo, "export", str(tmp_path / "x.copy"), "--namespace", "n", "--resume").exit_code == 2


async def test_a_page_of_large_documents_is_a_short_one(api: Api, engine: AsyncEngine, settings: Settings) -> None:
    api.standalone(("v", 2))
    sizes = [10, 900_000, *[10] * 40, *[50_000] * 30]
    api.upsert([document(f"d{n:03}", {"v": [1, n]}, text="x" * size) for n, size in enumerate(sizes)])
    async with transaction(engine, settings) as conn:
        wanted = await exporting.wanted_of(conn, api.namespace)
    pages = [page async for page in exporting.pages(engine, settings, wanted, page=40, size=500_000)]
    assert [i for page in pages for i in page.ids] == [f"d{n:03}" for n in range(len(sizes))]
    # The first fetch does not know yet what it gets; after it no page is much larger than asked.
    taken = [sum(map(len, page.payloads)) for page in pages]
    assert len(pages[0].ids) == exporting.FIRST_FETCH
    assert max(taken[1:]) <= 16 * 50_100
    assert max(len(page.ids) for page in pages) <= 40
    async with connection(engine) as conn:
        whole = await exporting.read_page(conn, wanted, None, 1_000)
    assert whole.ids == [i for page in pages for i in page.ids]
