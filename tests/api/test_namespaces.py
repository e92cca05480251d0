"""Namespaces over HTTP, and what every route does with keys, routes and bodies that are wrong."""

import json

import psycopg
import pytest

from tests.http import Api, document


def test_a_standalone_namespace_is_created_read_listed_and_deleted(api: Api, conninfo: str) -> None:
    made = api.standalone(("v", 3), ("w", 2, "dot_product"), namespace_name=f"{api.namespace} by name")
    assert made["mode"] == "standalone"
    assert made["status"] == "active"
    assert made["vector_configs"] == [
        {"name": "v", "dimension": 3, "metric": "cosine"},
        {"name": "w", "dimension": 2, "metric": "dot"},
    ]
    api.upsert([document("d", {"v": [1, 2, 3]})])
    for identifier in (api.namespace, f"{api.namespace} by name"):
        found = api("GET", f"/namespaces/{identifier}")
        assert found["namespace_id"] == api.namespace
        assert (found["document_count"], found["document_count_complete"]) == (1, True)
        assert found["vector_configs"] == made["vector_configs"]
        assert found["dynamic_vector_indexes"] is False
    assert api.namespace in listed(api)

    assert api("DELETE", f"/namespaces/{api.namespace}")["success"] is True
    api("GET", f"/namespaces/{api.namespace}", status=404)
    api("DELETE", f"/namespaces/{api.namespace}", status=404)
    with psycopg.connect(conninfo) as conn:
        gone = conn.execute("SELECT count(*) FROM pg_namespace WHERE nspname = %s", [api.namespace]).fetchone()
    assert gone == (0,)


def listed(api: Api) -> list[str]:
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api("GET", f"/namespaces?page_size=5{cursor and f'&cursor={cursor}'}")
        assert page["total_count"] >= len(page["results"])
        found += [namespace["namespace_id"] for namespace in page["results"]]
        cursor = page["pagination"]["next_cursor"]
    assert found == sorted(found)
    return found


def test_ids_and_names_share_one_space(api: Api) -> None:
    other = f"{api.namespace}_b"
    api.standalone(("v", 3), namespace_name=other)
    for body in (
        {"namespace_id": api.namespace},
        {"namespace_id": other},
        {"namespace_id": "x", "namespace_name": other},
    ):
        assert api.refused("POST", "/namespaces/standalone", body, status=409)[0] == "already_exists"


def test_ids_that_look_alike_get_schemas_of_their_own(api: Api, conninfo: str) -> None:
    ids = [f"{api.namespace}{suffix}" for suffix in ("", "-A", "-a", "_a", "X" * 60, "X" * 61)] + ["public", "select"]
    for namespace_id in ids:
        api("POST", "/namespaces/standalone", {"namespace_id": namespace_id, "vector_configs": []})
    try:
        with psycopg.connect(conninfo) as conn:
            query = "SELECT schema_name FROM pgretrieve.namespaces WHERE namespace_id = ANY(%s)"
            schemas = [row[0] for row in conn.execute(query, [ids])]
        assert len(set(schemas)) == len(ids)
        assert "public" not in schemas
        assert api.namespace in schemas
    finally:
        for namespace_id in ids:
            api("DELETE", f"/namespaces/{namespace_id}")


def test_a_schema_of_the_user_is_never_taken(api: Api, conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute(f'CREATE SCHEMA "{api.namespace}"')
        api.standalone(("v", 3))
        api.upsert([document("d", {"v": [1, 2, 3]})])
        tables = conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = %s", [api.namespace]).fetchone()
    assert tables == (0,)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"namespace_id": "-x"}, "bad_type"),
        ({"namespace_id": "a b"}, "bad_type"),
        ({"namespace_id": "x" * 129}, "bad_type"),
        ({}, "bad_type"),
        ({"namespace_id": "x", "vector_configs": [{"name": "v"}]}, "bad_type"),
        ({"namespace_id": "x", "vector_configs": [{"name": "v", "dimension": 0}]}, "bad_dimension"),
        ({"namespace_id": "x", "vector_configs": [{"name": "v", "dimension": 3, "metric": "l1"}]}, "unknown_metric"),
        ({"namespace_id": "x", "vector_configs": [{"name": "v", "dimension": 3}] * 2}, "duplicate_name"),
        ({"namespace_id": "x", "mode": "managed"}, "bad_mode"),
        ({"namespace_id": "x", "surprise": 1}, "extra_forbidden"),
    ],
)
def test_bad_namespaces_are_refused(api: Api, body: object, code: str) -> None:
    assert api.refused("POST", "/namespaces/standalone", body)[0] == code


def test_hostile_vector_names_are_columns_like_others(api: Api) -> None:
    names = [
        'a"; DROP TABLE x; --',
        "select",
        "document_id",
        "payload",
        "Ünï",
        "ünï",
        "x" * 128,
        "%(name)s",
        "a b",
        "A b",
    ]
    names += [":bind", "ctid", "1"]
    api.standalone(*((name, 2) for name in names))
    api.upsert([document("d", {name: [n, 1] for n, name in enumerate(names)})])
    found = api("GET", "/documents/d?return_vectors=true")
    assert found["vectors"] == {name: [n, 1] for n, name in enumerate(names)}


def test_no_key_and_an_unknown_key_are_401(api: Api) -> None:
    for headers in ({}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic abc"}):
        answer = api.http.get("/namespaces", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "UnauthorizedError"


def test_the_frameworks_errors_have_the_envelope_too(api: Api) -> None:
    api("GET", "/no/such/route", status=404)
    api("PUT", "/namespaces", status=405)
    answer = api("GET", "/namespaces?page_size=many", status=400)
    assert answer["error"]["type"] == "BadRequestError"
    assert answer["error"]["details"]["validation_errors"][0]["location"] == ["query", "page_size"]


def test_a_missing_namespace_is_said(api: Api) -> None:
    answer = api.http.post("/documents/list", headers={"Authorization": "Bearer pgr_test_root_key_0123456789"})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "missing_namespace"


def test_openapi_describes_every_route(api: Api) -> None:
    root = str(api.http.base_url).removesuffix("/v1/")
    schema = json.loads(api.http.get(f"{root}/docs/openapi.json").text)
    operations = [op for path in schema["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(operations)
    upsert = schema["paths"]["/v1/namespaces/{namespace_id}/documents/upsert"]["post"]
    assert upsert["requestBody"]


def test_the_services_are_listed_with_what_they_lack(api: Api) -> None:
    services = {service["name"]: service for service in api("GET", "/inference/services")["results"]}
    dimensions = {name: service["dimension"] for name, service in services.items()}
    assert (
        dimensions.items()
        >= {  # other tests' services are among them
            "clip_micro": 128,
            "clip_vit_b32": 512,
            "emoji_minilm": 384,
            "minilm_l6_v2": 384,
            "multilingual_e5_small": 384,
            "openai_text_3_large": 3072,
            "openai_text_3_small": 1536,
            "wordllama_256": 256,
        }.items()
    )
    assert services["minilm_l6_v2"]["available"] is True
    assert services["clip_vit_b32"]["available"] is False
    assert "PGRETRIEVE_CLIP_CHECKPOINT" in services["clip_vit_b32"]["reason"]
