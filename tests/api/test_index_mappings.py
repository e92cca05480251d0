"""Vector indexes over HTTP after a namespace was made: added, mapped, mapped anew, unmapped, dropped; all on record."""

from typing import Any

import psycopg
import pytest
from psycopg import sql

from app.domain.background import working
from app.domain.runtime import Runtime
from tests.http import Api, document, feature_search, search
from tests.state import state

LOCAL = ("summary", 384)
MINILM = {"inference_service": "minilm_l6_v2"}
VECTOR = [1.0] + [0.0] * 383


def indexes(api: Api) -> dict[str, tuple[str | None, str | None]]:
    found = api("GET", f"/namespaces/{api.namespace}/vector-mappings")["results"]
    return {index["name"]: (index["inference_service"], index["source_field"]) for index in found}


def add(api: Api, **body: Any) -> Any:
    return api("POST", f"/namespaces/{api.namespace}/vector-indexes", body)


def at(api: Api, name: str) -> str:
    return f"/namespaces/{api.namespace}/vector-indexes/{name}"


def mapping(api: Api, name: str) -> str:
    return f"/namespaces/{api.namespace}/vector-mappings/{name}"


def put(api: Api, name: str, **body: Any) -> Any:
    return api("PUT", mapping(api, name), body)


def changes(conninfo: str, api: Api) -> list[tuple[str, int, int]]:
    """Operations, and the versions before and after."""
    query = """SELECT operation, (before->>'version')::int, (after->>'version')::int FROM pgretrieve.vector_changes
        WHERE namespace_id = %s ORDER BY change_id"""
    with psycopg.connect(conninfo) as conn:
        return conn.execute(query, [api.namespace]).fetchall()


def managed(api: Api) -> None:
    """With documents that hold their source, and vectors of their callers."""
    api.standalone(LOCAL)
    api.upsert([document(f"d{n}", {"summary": VECTOR}, title=f"title {n}") for n in range(3)])
    api.promote()


def test_an_index_is_added_used_and_dropped_in_either_mode(api: Api, conninfo: str) -> None:
    for promoted in (False, True):
        added = add(api, name="extra", dimension=3) if promoted else None
        if added is None:
            api.standalone(LOCAL)
            added = add(api, name="extra", dimension=3)
        assert (added["metric"], added["index_method"], added["index_state"]) == ("cosine", "hnsw_vector", "building")
        api.upsert([document("d", {"summary": VECTOR, "extra": [1, 2, 3]}, n=1)])
        api.retriever("r", feature_search(search("extra", [1, 2, 3])))
        assert api.ids("r") == ["d"]
        refused = api("DELETE", at(api, "extra"), status=409)["error"]
        assert (refused["code"], refused["details"]["retrievers"]) == ("index_in_use", ["r"])
        assert api.ids("r") == ["d"]
        assert api("DELETE", at(api, "extra") + "?force=true")["name"] == "extra"
        assert api.refused("POST", "/retrievers/r/execute", {})[0] == "unknown_index"
        api("DELETE", "/retrievers/r")
        assert list(indexes(api)) == ["summary"]
        assert state(conninfo, api.namespace)[-1][-1] == "summary"
        if not promoted:
            api.promote()
    operations = [operation for operation, _, _ in changes(conninfo, api)]
    assert operations == ["add_vector", "drop_vector"] * 2
    assert all(before < after for _, before, after in changes(conninfo, api))


def test_every_kind_of_index_can_be_added_and_dropped(api: Api, conninfo: str) -> None:
    api.standalone(LOCAL)
    before = state(conninfo, api.namespace)[-1]
    for kind, dimension in (("sparse", 100), ("multi", 4)):
        add(api, name=f"v_{kind}", dimension=dimension, kind=kind)
    api.upsert([document("d", {"v_sparse": {"indices": [1], "values": [0.5]}, "v_multi": [[1, 2, 3, 4]]})])
    for kind in ("sparse", "multi"):
        api("DELETE", at(api, f"v_{kind}"))
    assert state(conninfo, api.namespace)[-1] == before
    add(api, name="v_multi", dimension=4, kind="multi")  # its table is gone, so the name is free


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"name": "summary", "dimension": 3}, "name_conflict@body.name"),
        ({"name": "", "dimension": 3}, "bad_name@body.name"),
        ({"name": "x", "dimension": 0}, "bad_dimension@body.dimension"),
        ({"name": "x", "dimension": 3, "metric": "m"}, "unknown_metric@body.metric"),
        ({"name": "x", "dimension": 3, "inference_service": "gone"}, "unknown_service@body.inference_service"),
        ({"name": "x", "dimension": 3, **MINILM}, "dimension_mismatch@body.inference_service"),
        ({"name": "x", "dimension": 384, **MINILM, "source_field": "a..b"}, "bad_field@body.source_field"),
    ],
)
def test_what_cannot_be_added_is_refused_and_nothing_is_changed(
    api: Api, conninfo: str, body: dict[str, Any], problem: str
) -> None:
    managed(api)
    before = state(conninfo, api.namespace)
    assert api.refused("POST", f"/namespaces/{api.namespace}/vector-indexes", body)[1] == [problem]
    assert state(conninfo, api.namespace) == before


def test_services_are_mapped_in_managed_namespaces_only(api: Api) -> None:
    api.standalone(LOCAL)
    body = {"inference_service": "minilm_l6_v2"}
    for method, path, sent in (
        ("PUT", mapping(api, "summary"), body),
        ("DELETE", mapping(api, "summary"), None),
        ("POST", f"/namespaces/{api.namespace}/vector-indexes", {"name": "x", "dimension": 384, **body}),
    ):
        error = api(method, path, sent, status=409)["error"]
        assert error["code"] == "not_managed"
        assert f"/v1/namespaces/{api.namespace}/promote" in error["message"]


def test_an_index_is_mapped_searched_by_text_and_unmapped(api: Api, conninfo: str) -> None:
    managed(api)
    mapped = put(api, "summary", inference_service="minilm_l6_v2", source_field="title", verify="off")
    assert (mapped["inference_service"], mapped["source_field"], mapped["warnings"]) == ("minilm_l6_v2", "title", [])
    api.retriever("r", feature_search(search("summary", "{{INPUT.q}}", mode="text")))
    assert len(api.ids("r", inputs={"q": "title"})) == 3
    refused = api("DELETE", mapping(api, "summary"), status=409)["error"]
    assert (refused["code"], refused["details"]["retrievers"]) == ("index_in_use", ["r"])
    assert api("DELETE", mapping(api, "summary") + "?force=true")["inference_service"] is None
    assert api.refused("POST", "/retrievers/r/execute", {"inputs": {"q": "title"}})[0] == "text_needs_service"
    assert indexes(api) == {"summary": (None, None)}
    assert api.refused("DELETE", mapping(api, "summary"), status=409)[0] == "not_mapped"
    assert [operation for operation, _, _ in changes(conninfo, api)] == ["map", "unmap"]


async def test_a_service_that_embeds_content_begins_and_ends_with_its_mapping(
    api: Api, conninfo: str, runtime: Runtime
) -> None:
    api.standalone(LOCAL)
    api.promote()
    put(api, "summary", inference_service="minilm_l6_v2", source_field="title")
    api.upsert([document("a", title="one")])
    assert await working.do_all(runtime, api.namespace) == 1
    put(api, "summary", inference_service="minilm_l6_v2", source_field="body")
    api.upsert([document("b", body="two"), document("c", title="three")])
    assert await working.do_all(runtime, api.namespace) == 1
    api("DELETE", mapping(api, "summary"))
    api.upsert([document("d", body="four")])
    assert await working.do_all(runtime, api.namespace) == 0
    query = sql.SQL("SELECT document_id FROM {} WHERE summary IS NOT NULL ORDER BY 1")
    with psycopg.connect(conninfo) as conn:
        found = conn.execute(query.format(sql.Identifier(api.namespace, "documents"))).fetchall()
    assert found == [("a",), ("b",)]


async def test_another_service_over_vectors_of_the_first_is_refused_and_the_way_is_named(
    api: Api, conninfo: str, runtime: Runtime
) -> None:
    api.standalone(LOCAL)
    api.promote({"vector_mappings": [{"existing_index": "summary", "inference_service": "minilm_l6_v2"}]})
    put(api, "summary", inference_service="minilm_l6_v2", source_field="title")
    api.upsert([document("a", title="one")])
    await working.do_all(runtime, api.namespace)
    before = state(conninfo, api.namespace)
    other = {"inference_service": "multilingual_e5_small"}
    for verify in ("off", "sample", "require", None):
        error = api("PUT", mapping(api, "summary"), {**other, "verify": verify}, status=409)["error"]
        assert error["code"] == "made_by_another_service"
        assert f"/v1/namespaces/{api.namespace}/migrations" in error["message"]
    assert state(conninfo, api.namespace) == before
    api("DELETE", mapping(api, "summary"))
    assert api.refused("PUT", mapping(api, "summary"), other, status=409)[0] == "made_by_another_service"


def test_another_service_over_callers_vectors_needs_proof_or_their_word(api: Api) -> None:
    managed(api)
    put(api, "summary", inference_service="minilm_l6_v2", verify="off")
    other = {"inference_service": "multilingual_e5_small"}
    for verify in ("require", None):
        code, problems = api.refused("PUT", mapping(api, "summary"), {**other, "verify": verify})
        assert code in ("proof_unknown", "proof_mismatch")
        assert problems == [f"{code}@body.inference_service"]
    assert put(api, "summary", **other, verify="off")["inference_service"] == "multilingual_e5_small"


def test_an_empty_index_is_mapped_to_anything_that_fits(api: Api) -> None:
    api.standalone(LOCAL)
    api.promote({"vector_mappings": [{"existing_index": "summary", "inference_service": "minilm_l6_v2"}]})
    assert (
        put(api, "summary", inference_service="multilingual_e5_small")["inference_service"] == "multilingual_e5_small"
    )
    assert api.refused("PUT", mapping(api, "summary"), {"inference_service": "gone"})[0] == "unknown_service"
    refused = api.refused("PUT", mapping(api, "summary"), {"inference_service": "clip_vit_b32"})
    assert refused[0] == "dimension_mismatch"
    assert api.refused("PUT", mapping(api, "none"), {"inference_service": "x"}, status=404)[0] == "not_found"
    assert api.refused("DELETE", at(api, "none"), status=404)[0] == "not_found"


def test_a_column_that_an_analysts_view_reads_is_not_dropped(api: Api, conninfo: str) -> None:
    managed(api)
    view = sql.SQL("CREATE VIEW {} AS SELECT document_id, summary FROM {}")
    name = sql.Identifier(api.namespace, "of_an_analyst")
    with psycopg.connect(conninfo) as conn:
        conn.execute(view.format(name, sql.Identifier(api.namespace, "documents")))
    before = state(conninfo, api.namespace)
    error = api("DELETE", at(api, "summary"), status=409)["error"]
    assert error["code"] == "index_in_use"
    assert "of_an_analyst" in error["message"]
    assert state(conninfo, api.namespace) == before


def test_a_name_with_slashes_is_reached_by_its_path(api: Api) -> None:
    managed(api)
    add(api, name="of/two parts", dimension=384)
    assert put(api, "of/two%20parts", **MINILM)["inference_service"] == "minilm_l6_v2"
    assert api("DELETE", mapping(api, "of/two%20parts"))["inference_service"] is None
    assert api("DELETE", at(api, "of/two%20parts"))["name"] == "of/two parts"
    assert list(indexes(api)) == ["summary"]
