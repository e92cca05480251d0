"""A table that its user has already, adopted in place: it is read like any namespace, and stays as it is."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from app import service
from app.cli import main
from app.db import namespace_migrations
from app.db.namespace_migrations import Step
from app.settings import Settings
from tests.adopting import NEAR, adopt, films, run
from tests.http import ROOT_KEY, Api, feature_search, search

# Where each row lies and who wrote it; the table's file; its columns with all their settings; its indexes and triggers.
PHYSICAL = (
    "SELECT ctid::text, xmin::text, id::text FROM {0} ORDER BY 1",
    "SELECT relfilenode, relnatts, relhastriggers, relrowsecurity, xmin::text FROM pg_class WHERE oid = {1}::regclass",
    "SELECT a::text, a.xmin::text FROM pg_attribute a WHERE attrelid = {1}::regclass ORDER BY attnum",
    "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = {1}::regclass ORDER BY 1",
    "SELECT count(*) FROM pg_trigger WHERE tgrelid = {1}::regclass",
)


def physical(conninfo: str, table: str) -> list[Any]:
    with psycopg.connect(conninfo) as conn:
        places = sql.Identifier(*table.split(".")), sql.Literal(table)
        return [conn.execute(sql.SQL(query).format(*places)).fetchall() for query in PHYSICAL]


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.commands.options.configure_logging", lambda *_: None)


@pytest.fixture
def table(conninfo: str) -> Iterator[str]:
    with films(conninfo) as name:
        yield name


def test_adopting_searching_and_deleting_leave_the_table_as_it_is(api: Api, conninfo: str, table: str) -> None:
    before = physical(conninfo, table)
    made = adopt(api, table)
    assert (made["adopted_from"], made["namespace"]["mode"]) == (table, "standalone")
    assert made["namespace"]["vector_configs"] == [{"name": "embedding", "dimension": 8, "metric": "cosine"}]
    assert made["namespace"]["document_count"] == 60
    assert made["warnings"] == ["The column 'poster' is bytea, which is left out of the payload."]
    api.retriever("near", feature_search(search("embedding", [1, 0, 0, 0, 0, 0, 0, 0], top_k=5)))
    assert len(api.ids("near")) == 5
    api("DELETE", f"/namespaces/{api.namespace}")
    assert physical(conninfo, table) == before
    api("GET", f"/namespaces/{api.namespace}", status=404)


def plan(conninfo: str, query: str, *names: str) -> str:
    with psycopg.connect(conninfo) as conn:
        conn.execute("SET enable_seqscan = off")
        text = sql.SQL(query).format(*(sql.Identifier(*name.split(".")) for name in names))
        return "\n".join(str(row[0]) for row in conn.execute(sql.SQL("EXPLAIN ") + text))


def test_the_indexes_of_the_table_serve_searches_filters_and_documents(api: Api, conninfo: str) -> None:
    with films(conninfo, 3000) as table:
        run(conninfo, "CREATE INDEX films_of ON {} (title)", table)
        adopt(api, table)
        view = f"{api.namespace}.documents"
        near = "SELECT payload FROM {} WHERE embedding IS NOT NULL ORDER BY embedding <=> '[1,0,0,0,0,0,0,0]' LIMIT 3"
        assert "Index Scan using films_near" in plan(conninfo, near, view)
        lookup = "SELECT payload FROM {} WHERE \"Key\" = pgretrieve.key_bigint('7')"
        assert "Index Scan using films_pkey" in plan(conninfo, lookup, view)
        api.retriever(
            "seven",
            feature_search(
                search("embedding", NEAR, top_k=3, filters={"field": "title", "operator": "eq", "value": "Film 7"})
            ),
        )
        explained = api("POST", "/retrievers/seven/execute/explain", {"analyze": True})
        assert "films_of" in json.dumps(explained)
        assert "films_pkey" in json.dumps(explained)


def test_what_is_written_in_sql_is_found_by_the_next_query(api: Api, conninfo: str, table: str) -> None:
    adopt(api, table)
    api.retriever("near", feature_search(search("embedding", [9, 9, 9, 9, 9, 9, 9, 9], top_k=1)))
    run(conninfo, "INSERT INTO {} (id, genre, embedding) VALUES (-5, 'new', '[9,9,9,9,9,9,9,9]')", table)
    assert api.ids("near") == ["-5"]
    assert api("GET", "/collections/_direct_upsert/documents/-5")["genre"] == "new"
    run(conninfo, "UPDATE {} SET genre = 'newer' WHERE id = -5", table)
    assert api.execute("near")["documents"][0]["payload"]["genre"] == "newer"
    run(conninfo, "DELETE FROM {} WHERE id = -5", table)
    assert api.ids("near") != ["-5"]
    api("GET", "/collections/_direct_upsert/documents/005", status=404)


def test_nothing_writes_to_an_adopted_table(api: Api, conninfo: str, table: str, tmp_path: Path) -> None:
    adopt(api, table)
    before = physical(conninfo, table)
    here = f"/namespaces/{api.namespace}"
    refused: list[tuple[str, str, Any]] = [
        ("POST", f"{here}/documents/upsert", {"documents": [{"document_id": "1", "vectors": {}, "payload": {}}]}),
        ("POST", f"{here}/documents/upsert", {"documents": [{"document_id": "1", "vectors": {"new": [1]}}]}),
        ("DELETE", "/collections/_direct_upsert/documents/1", None),
        ("PATCH", "/collections/_direct_upsert/documents/1", {"genre": "x"}),
        ("PATCH", f"{here}/vector-indexes/embedding", {"m": 8}),
        ("PATCH", here, {"payload_indexes": [{"field_name": "title", "type": "text"}]}),
        ("POST", f"{here}/ensure-indexes?force_rebuild=true", None),
        ("POST", f"{here}/clone", {"namespace_name": f"{api.namespace}_2"}),
        ("POST", "/buckets", {"bucket_name": "b", "bucket_schema": {"properties": {}}}),
    ]
    for method, path, body in refused:
        assert api.refused(method, path, body, status=409) == ("adopted_table", []), path
    file, environment = tmp_path / "saved", {"DATABASE_URL": conninfo}
    assert "adopted table" in CliRunner().invoke(main, ["backup", api.namespace, str(file)], env=environment).output
    assert not file.exists()
    out = str(tmp_path / "films.jsonl")
    told = CliRunner().invoke(main, ["export", out, "--namespace", api.namespace], env=environment)
    assert told.output == f"60 documents in {out}.\n"
    with psycopg.connect(conninfo) as conn, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        conn.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(api.namespace, "documents")))
    assert physical(conninfo, table) == before
    assert api("PATCH", here, {"description": "Films."})["description"] == "Films."


def test_a_promotion_gives_it_a_service_for_queries_and_no_more(api: Api, conninfo: str) -> None:
    with films(conninfo, dimension=384) as table:
        adopt(api, table, vectors=[{"column": "embedding", "name": "plot"}])
        before = physical(conninfo, table)
        wanted = {"existing_index": "plot", "inference_service": "minilm_l6_v2"}
        added = [{"name": "more", "dimension": 384, "inference_service": "minilm_l6_v2"}]
        body = {"vector_mappings": [{**wanted, "source_field": "title"}], "add_vectors": added}
        code, problems = api.refused("POST", f"/namespaces/{api.namespace}/promote", body)
        assert code == "adopted_table"
        assert problems == [
            "adopted_table@body.add_vectors",
            "adopted_table@body.vector_mappings.0.source_field",
        ]
        assert api("POST", f"/namespaces/{api.namespace}/promote/validate", {"vector_mappings": [wanted]})["valid"]
        rehearsed = api.promote({"vector_mappings": [wanted], "dry_run": "rehearse"})
        assert (rehearsed["verdict"], rehearsed["ddl"], rehearsed["documents_estimated"]) == ("promoted", [], 60)
        (_, problems) = api.refused(
            "POST", f"/namespaces/{api.namespace}/promote", {"vector_mappings": [wanted], "verify": "require"}
        )
        assert problems[0].startswith("proof_")  # made of random numbers
        assert api.promote({"vector_mappings": [wanted], "verify": "off"})["mode"] == "managed"
        api.retriever("plots", feature_search(search("plot", "{{INPUT.q}}", mode="text", top_k=4)))
        assert len(api.ids("plots", inputs={"q": "a war in space"})) == 4
        assert physical(conninfo, table) == before


def test_a_retriever_is_a_function_of_the_same_rows(api: Api, conninfo: str, table: str) -> None:
    run(conninfo, "CREATE INDEX ON {} (year)", table)
    adopt(api, table)
    where = {"field": "year", "operator": "gte", "value": "{{INPUT.from}}"}
    inputs = {"from": {"type": "integer"}, "v": {"type": "array"}}
    api.retriever(
        "near", feature_search(search("embedding", "{{INPUT.v}}", top_k=5, filters=where)), input_schema=inputs
    )
    made = api("PUT", "/retrievers/near/function", {"name": "near"})
    name = f"{made['schema_name']}.{made['function_name']}"
    found = run(
        conninfo, "SELECT document_id FROM {}(\"from\" => 2001, v => '[1,0.5,0,0,-1,0,0,0.25]') ORDER BY rank", name
    )
    assert [row[0] for row in found] == api.ids("near", inputs={"from": 2001, "v": NEAR})
    assert len(found) == 5


def test_every_problem_of_a_table_is_told_at_once(api: Api, conninfo: str, table: str) -> None:
    schema = table.split(".")[0]
    run(
        conninfo,
        "CREATE TABLE {} (a int, b int, c date NOT NULL UNIQUE, v vector, PRIMARY KEY (a, b))",
        f"{schema}.bad",
    )
    body: dict[str, Any] = {"table": f"{schema}.bad", "namespace_id": api.namespace, "payload_columns": ["x"]}
    code, problems = api.refused("POST", "/namespaces/adopt", body)
    assert (code, problems) == (
        "composite_key",
        ["composite_key@body.key", "no_dimension@body.vectors.0.column", "unknown_column@body.payload_columns.0"],
    )
    more = {"key": "c", "vectors": [{"column": "a"}, {"column": "z"}], "payload_column": "a"}
    code, problems = api.refused("POST", "/namespaces/adopt", body | more)
    assert problems == [
        "unsupported_type@body.key",
        "unsupported_type@body.vectors.0.column",
        "unknown_column@body.vectors.1.column",
        "bad_value@body.payload_column",
        "unsupported_type@body.payload_column",
    ]
    run(conninfo, "CREATE VIEW {} AS SELECT * FROM {}", f"{schema}.shown", table)
    run(conninfo, "CREATE TABLE {} (id int PRIMARY KEY)", f"{schema}.none")
    run(conninfo, "CREATE TABLE {} (t text, v vector(3))", f"{schema}.keyless")
    for name, wanted in {
        f"{schema}.shown": "not_a_table@body.table",
        f"{schema}.none": "no_vectors@body.vectors",
        f"{schema}.keyless": "no_key@body.key",
        f"{schema}.absent": "no_table@body.table",
        "a.b.c.d": "no_table@body.table",
        '"': "no_table@body.table",
        "pgretrieve.namespaces": "not_a_user_table@body.table",
    }.items():
        _, problems = api.refused("POST", "/namespaces/adopt", {"table": name, "namespace_id": api.namespace})
        assert wanted in problems, name
    code, problems = api.refused(
        "POST", "/namespaces/adopt", {"table": table, "namespace_id": api.namespace, "key": "year"}
    )
    assert problems == ["not_unique@body.key"]
    adopt(api, table)
    assert api.refused("POST", "/namespaces/adopt", {"table": table, "namespace_id": api.namespace}, status=409)[0] == (
        "already_exists"
    )
    _, problems = api.refused("POST", "/namespaces/adopt", body)
    assert "already_exists@body.namespace_id" in problems


def test_indexes_are_used_as_they_are_and_looked_for_again(api: Api, conninfo: str) -> None:
    with films(conninfo, index="ivfflat (embedding vector_l2_ops) WITH (lists = 2)") as table:
        made = adopt(api, table)
        assert "films_near is ivfflat" in made["warnings"][0]
        ensure = f"/namespaces/{api.namespace}/ensure-indexes"
        assert api("POST", ensure)["skipped"] == ["embedding"]
        run(conninfo, "CREATE INDEX films_hnsw ON {} USING hnsw (embedding vector_ip_ops)", table)
        assert api("POST", ensure)["skipped"] == ["embedding"]  # of another metric
        run(conninfo, "CREATE INDEX films_cosine ON {} USING hnsw (embedding vector_cosine_ops)", table)
        assert api("POST", ensure)["ensured"] == ["embedding"]
        told = run(
            conninfo,
            f"SELECT index_name, index_method, index_is_valid FROM {{}} WHERE schema_name = '{api.namespace}'",
            "pgretrieve.all_vector_configs",
        )
        assert told == [("films_cosine", "hnsw_vector", True)]
        api("DELETE", f"/namespaces/{api.namespace}")
        found = adopt(api, table, vectors=[{"column": "embedding", "metric": "dot"}])
        assert found["namespace"]["vector_configs"][0]["metric"] == "dot"
        assert found["warnings"] == ["The column 'poster' is bytea, which is left out of the payload."]


def test_the_table_may_be_renamed_and_is_kept_from_losing_a_column(api: Api, conninfo: str, table: str) -> None:
    adopt(api, table)
    api.retriever("near", feature_search(search("embedding", NEAR, top_k=3)))
    before = api.ids("near")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        run(conninfo, "ALTER TABLE {} DROP COLUMN title", table)
    run(conninfo, "ALTER TABLE {} RENAME COLUMN title TO name", table)
    run(conninfo, "ALTER TABLE {} RENAME TO movies", table)
    assert api.ids("near") == before
    assert "title" in api.execute("near")["documents"][0]["payload"]
    movies = table.replace(".films", ".movies")
    assert api("GET", f"/namespaces/{api.namespace}")["adopted_from"] == movies
    run(conninfo, "DROP TABLE {} CASCADE", movies)
    assert api.refused("POST", "/retrievers/near/execute", {}, status=409)[0] == "changing"
    assert api.refused("POST", f"/namespaces/{api.namespace}/ensure-indexes", status=409)[0] == "adopted_table"
    api("DELETE", f"/namespaces/{api.namespace}")


def test_a_json_column_is_the_payload(api: Api, conninfo: str, table: str) -> None:
    run(conninfo, "UPDATE {} SET info = '[1]' WHERE id = 3", table)
    adopt(api, table, payload_column="info")
    one, three = (api("GET", f"/collections/_direct_upsert/documents/{n}")["payload"] for n in (1, 3))
    assert (one["length"], three) == (81, {})


def test_a_table_of_many_columns_is_adopted(api: Api, conninfo: str, table: str) -> None:
    wide = table.replace(".films", ".wide")
    names = ", ".join(f"c{n} int DEFAULT {n}" for n in range(120))
    run(conninfo, "CREATE TABLE {} (id text PRIMARY KEY, v vector(2), " + names + ")", wide)
    run(conninfo, "INSERT INTO {} (id, v) VALUES ('a', '[1,2]')", wide)
    adopt(api, wide)
    payload = api("GET", "/collections/_direct_upsert/documents/a")["payload"]
    assert payload == {f"c{n}": n for n in range(120)}


def test_a_filter_that_no_index_serves_says_what_would(conninfo: str, settings: Settings) -> None:
    advising = settings.model_copy(update={"index_advice_documents": 1})
    with (
        films(conninfo) as table,
        service.in_background(advising, conninfo, ROOT_KEY) as base,
        httpx.Client(base_url=f"{base}/v1") as http,
    ):
        fresh = Api(http, table.split(".")[0] + "_ns")
        adopt(fresh, table)
        said = []
        for field, value in (("year", 1999), ("info.length", 90)):
            where = {"field": field, "operator": "eq", "value": value}
            fresh.retriever("r", feature_search(search("embedding", NEAR, filters=where)))
            said += fresh.execute("r")["warnings"]
        ensure = f"POST /v1/namespaces/{fresh.namespace}/ensure-indexes"
        assert said == [
            "The filter on 'year' reads every document of the adopted table; an index of that column would serve it, "
            f"once {ensure} has found it.",
            "The filter on 'info.length' reads every document of the adopted table; none of its indexes can serve it.",
        ]


def test_the_command_adopts(conninfo: str, api: Api, table: str) -> None:
    told = CliRunner().invoke(
        main,
        ["adopt", table, "--as", api.namespace, "--vector", "embedding=plot:dot", "--payload", "title,year"],
        env={"DATABASE_URL": conninfo},
    )
    assert told.exit_code == 0, told.output
    assert f"{table} is the namespace {api.namespace}: plot (8 dimensions, dot)." in told.output
    assert "its searches are exact" in told.output
    assert api("GET", "/collections/_direct_upsert/documents/1")["payload"] == {"title": "Film 1", "year": 1991}


def test_the_example_of_the_page_works(fresh_database: Callable[[], str], settings: Settings) -> None:
    page = (Path(__file__).parents[2] / "docs" / "adopting.md").read_text(encoding="utf-8")
    url = fresh_database()
    with psycopg.connect(url, autocommit=True) as conn:
        for block in re.findall(r"```sql\n(.*?)```", page, flags=re.DOTALL):
            conn.execute(block.encode())
    (body,) = re.findall(r"```json\nPOST /v1/namespaces/adopt\n(.*?)```", page, flags=re.DOTALL)
    with service.in_background(settings, url, ROOT_KEY) as base, httpx.Client(base_url=f"{base}/v1") as http:
        api = Api(http, "films")
        made = api("POST", "/namespaces/adopt", json.loads(body))
        assert (made["warnings"], made["namespace"]["document_count"]) == ([], 3)
        newer = {"field": "year", "operator": "gt", "value": 1990}
        api.retriever("like_heat", feature_search(search("embedding", [0, 1, 0], filters=newer)))
        assert api.ids("like_heat") == ["2", "3"]


def test_steps_of_namespaces_pass_adopted_tables_by(fresh_database: Callable[[], str]) -> None:
    url = fresh_database()
    step = Step(9_999, "ALTER TABLE documents ADD COLUMN more text")
    with films(url) as table:
        told = CliRunner().invoke(main, ["adopt", table, "--as", "films", "--json"], env={"DATABASE_URL": url})
        assert json.loads(told.stdout)["adopted_from"] == table
        assert namespace_migrations.run(url, [step]) == 0
