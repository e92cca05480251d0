"""Who made a vector: shown beside it, and kept by copies."""

import psycopg
import pytest

from tests.http import Api, document


@pytest.fixture
def made(api: Api) -> Api:
    vector = {"name": "Text!", "dimension": 384, "inference_service": "minilm_l6_v2", "source_field": "title"}
    names = {"namespace_id": api.namespace, "namespace_name": api.namespace}
    api("POST", "/namespaces", {**names, "vector_configs": [vector]})
    api.upsert([document("by_service", title="A ship"), document("own", {"Text!": [1.0] * 384})], wait=True)
    return api


def test_reads_with_vectors_show_which_service_made_them(made: Api) -> None:
    shown = made("GET", "/documents/by_service?return_vectors=true")["_internal"]["provenance"]
    assert shown.keys() == {"Text!"}
    assert shown["Text!"].keys() == {"service", "model", "revision", "input", "at"}
    assert shown["Text!"]["service"] == "minilm_l6_v2"
    assert "provenance" not in made("GET", "/documents/own?return_vectors=true")["_internal"]
    assert "provenance" not in made("GET", "/documents/by_service")["_internal"]
    listed = made("POST", "/collections/_direct_upsert/documents/list", {"return_vectors": True})["results"]
    assert [doc["_internal"].get("provenance") for doc in listed] == [shown, None]


def test_a_copy_keeps_it_and_embeds_nothing_anew(made: Api, conninfo: str) -> None:
    name = f"copy_{made.namespace}"
    copy = made("POST", f"/namespaces/{made.namespace}/clone", {"namespace_name": name})["namespace"]["namespace_id"]
    path = "/documents/by_service?return_vectors=true"
    assert made("GET", path, headers={"X-Namespace": copy}) == made("GET", path)
    query = """SELECT document_id, made_by, service, input_hash, is_mapped FROM pgretrieve.vector_provenance
        WHERE namespace_id = %s ORDER BY document_id"""
    work = "SELECT count(*) FROM pgretrieve.work WHERE namespace_id = %s"
    with psycopg.connect(conninfo) as conn:
        both = [conn.execute(query, [namespace]).fetchall() for namespace in (made.namespace, copy)]
        assert conn.execute(work, [copy]).fetchone() == (0,)
    assert both[0] == both[1]
    assert [row[:3] for row in both[1]] == [("by_service", "service", "minilm_l6_v2"), ("own", "caller", None)]
