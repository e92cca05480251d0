"""A retriever as a SQL function: the rows of the API, made anew with what changes, and safe whatever it is called."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from tests.functions import Functions
from tests.http import Api, document, feature_search, search, stage

V = {"v": [0.1, 0.7]}
NASTY = [
    "it's",
    'say "x"',
    "back\\slash",
    "%s %(x)s %%",
    "-- no",
    "$1 $$ $function$",
    ":v :=",
    "a.b*(c)",
    "É\n\t;",
    "{{",
]
PAYLOADS: list[dict[str, Any]] = [
    {"n": n, "price": [n, 2.5, n + 0.5, 10 * n][n % 4], "text": NASTY[n % len(NASTY)], "tags": ["all", f"t{n % 3}"]}
    | {"on": n % 2 == 0, "at": f"2026-01-{n + 1:02}T1{n % 10}:00:00Z", "items": [{"size": n, "color": "red"}] * (n % 3)}
    for n in range(20)
]


@pytest.fixture
def shop(api: Api, conninfo: str) -> Iterator[Functions]:
    api.standalone(("v", 2), ("far", 2, "euclidean"))
    api.upsert([document(f"d{n:02}", {"v": [1, n], "far": [n, 1]}, **p) for n, p in enumerate(PAYLOADS)])
    with psycopg.connect(conninfo, autocommit=True) as conn:
        yield Functions(api, conn)


def near(**more: Any) -> dict[str, Any]:
    return feature_search(search("v", "{{INPUT.v}}", **more), final_top_k=20)


def test_publishing_answers_how_it_is_called_and_what_its_parameters_are(shop: Functions) -> None:
    schema = {
        "v": {"type": "array", "required": True, "description": "Where to look."},
        "Max Price": {"type": "number"},
        "color": {"type": "string", "default": "it's", "enum": ["it's", "no"]},
        "score": {"type": "integer"},
    }
    conditions = [
        {"field": "price", "operator": "lte", "value": "{{INPUT['Max Price']}}"},
        {"field": "text", "operator": "eq", "value": "{{INPUT.color}}"},
        {"field": "n", "operator": "gte", "value": "{{INPUT.score}}"},
    ]
    stages = [near(), stage("attribute_filter", conditions={"AND": conditions})]
    shop.api.retriever("Cheap & Near", *stages, input_schema=schema, description="What is near.")
    told = shop.publish("Cheap & Near")
    assert told["function_name"].startswith("cheap_near_")
    parameters = [(p["name"].rpartition("_")[0] or p["name"], p["type"], p["required"]) for p in told["parameters"]]
    assert parameters[0] == ("v", "vector", True)
    assert sorted(parameters[1:]) == [
        ("color", "text", False),
        ("max_price", "double precision", False),
        ("score", "bigint", False),
    ]
    assert told["signature"].endswith("strategy text DEFAULT 'auto', row_limit bigint DEFAULT NULL")
    inputs: dict[str, Any] = {**V, "Max Price": 50, "score": 1}
    assert shop.same("Cheap & Near", inputs) == shop.same("Cheap & Near", {**V, "Max Price": 50, "score": 1})
    assert shop.same("Cheap & Near", V)
    about = shop.conn.execute("SELECT obj_description(%s::regproc)", [quoted(told)]).fetchone()
    assert about is not None
    assert "What is near." in about[0]
    assert "v: the input 'v', required; Where to look." in about[0]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="must be one of"):
        shop.call("Cheap & Near", {**V, "color": "other"})
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="strategy is auto"):
        shop.call("Cheap & Near", V, strategy="fast")
    with pytest.raises(psycopg.errors.DataException, match="expected 2 dimensions"):
        shop.call("Cheap & Near", {"v": [1, 2, 3]})
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no direction"):
        shop.call("Cheap & Near", {"v": [0, 0]})
    assert len(shop.call("Cheap & Near", V, row_limit=1)) == 1


def quoted(told: dict[str, Any]) -> str:
    return sql.Identifier(told["schema_name"], told["function_name"]).as_string(None)


OPTIONAL = {"v": {"type": "array", "required": True}} | {
    name: {"type": type_} for name, type_ in (("a", "string"), ("b", "number"), ("c", "boolean"))
}
CONDITIONS = [
    {"field": "text", "operator": "eq", "value": "{{INPUT.a}}"},
    {"field": "price", "operator": "gt", "value": "{{INPUT.b}}"},
    {"field": "on", "operator": "eq", "value": "{{INPUT.c}}"},
]
GROUPS: list[Any] = [
    {"AND": CONDITIONS},
    {"OR": CONDITIONS},
    {"NOT": CONDITIONS},
    {"AND": [CONDITIONS[0], {"OR": [CONDITIONS[1], {"NOT": [CONDITIONS[2]]}]}]},
    {"OR": [{"AND": CONDITIONS[:2]}, CONDITIONS[2], {"field": "n", "operator": "lt", "value": 3}]},
    {"NOT": [{"AND": CONDITIONS[1:]}, {"field": "n", "operator": "eq", "value": 3}]},
]


@pytest.mark.parametrize("n", range(len(GROUPS)))
def test_conditions_whose_input_is_missing_do_not_count_as_over_the_api(shop: Functions, n: int) -> None:
    shop.api.retriever("r", near(filters=GROUPS[n]), input_schema=OPTIONAL)
    shop.publish("r")
    for mask in range(8):
        inputs = {name: value for bit, (name, value) in enumerate(VALUES.items()) if mask >> bit & 1}
        for strategy in ("exact", "hnsw_iterative"):
            shop.same("r", {**V, **inputs}, strategy=strategy)


VALUES = {"a": NASTY[0], "b": 12.5, "c": True}
FIELDS: list[dict[str, Any]] = [
    *({"field": "price", "operator": op} for op in ("eq", "ne", "gt", "gte", "lt", "lte")),
    *({"field": "text", "operator": op} for op in ("eq", "contains", "starts_with", "ends_with", "text", "gte", "lt")),
    *({"field": "text", "operator": op, "case_insensitive": True} for op in ("eq", "contains", "starts_with")),
    {"field": "text", "operator": "regex", "pattern": True},
    *({"field": "text", "operator": op, "pattern": True} for op in ("phrase", "words")),
    *({"field": field, "operator": op, "list": True} for op in ("in", "nin") for field in ("price", "text", "tags")),
    {"field": "document_id", "operator": "in", "list": True},
    {"field": "on", "operator": "exists", "flag": True},
]
KEYED: list[tuple[str, str, Any]] = [
    ("price", "value", {"match": {"value": "{{INPUT.x}}"}}),
    ("tags", "value", {"match": {"value": "{{INPUT.x}}"}}),
    ("price", "list", {"match": {"any": "{{INPUT.x}}"}}),
    ("text", "list", {"match": {"any": "{{INPUT.x}}"}}),
    ("price", "list", {"match": {"except": "{{INPUT.x}}"}}),
    ("text", "value", {"match": {"prefix": "{{INPUT.x}}"}}),
    ("text", "value", {"match": {"substring": "{{INPUT.x}}"}}),
    ("price", "number", {"range": {"gte": "{{INPUT.x}}", "lt": 60}}),
    ("at", "date", {"range": {"gte": "{{INPUT.x}}"}}),
    ("items", "count", {"values_count": {"gte": "{{INPUT.x}}"}}),
    ("items", "flag", {"is_empty": "{{INPUT.x}}"}),
]
SAMPLES: dict[str, list[Any]] = {
    "value": [*NASTY, 2.5, 3, 40, "t1", "all"],
    "list": [[], [NASTY[0], 2.5, 8, "t1"], [*range(40), *NASTY], ["d01", "d07"], [2.5, 3.5]],
    "number": [0, 2.5, 18, 1e9],
    "date": ["2026-01-05", "2026-01-05T12:00:00+02:00", "2026-01-09 15:00:00.1234567Z"],
    "count": [0, 1, 2],
    "flag": [True, False],
    "pattern": ["^it", "[a-z]+$", "É"],
}


@pytest.mark.parametrize("indexed", [False, True])
def test_every_operator_means_with_a_parameter_what_it_means_over_the_api(
    api: Api, shop: Functions, indexed: bool
) -> None:
    if indexed:
        types = {"price": "float", "text": "keyword", "tags": "keyword", "at": "datetime", "on": "bool"}
        indexes = [{"field_name": name, "type": type_} for name, type_ in types.items()]
        api("PATCH", f"/namespaces/{api.namespace}", {"payload_indexes": indexes})
    asked = [
        (
            kind,
            {"field": f["field"], "operator": f["operator"], "value": "{{INPUT.x}}"},
            f.get("case_insensitive", False),
        )
        for f in FIELDS
        for kind in [next((k for k in ("list", "flag", "pattern") if f.get(k)), "value")]
    ]
    asked += [(kind, {"must": [{"key": key, **test}]}, False) for key, kind, test in KEYED]
    compared = 0
    for kind, condition, fold in asked:
        api.retriever("op", stage("attribute_filter", conditions=condition, case_insensitive=fold))
        shop.publish("op")
        for value in SAMPLES[kind]:
            body = {"inputs": {"x": value}, "limit": 100}
            answer = api.http.post("/retrievers/op/execute", json=body, headers=headers(api))
            if answer.status_code == 422:
                with pytest.raises(psycopg.errors.DataError):
                    shop.call("op", {"x": value})
            else:
                shop.same("op", {"x": value})
                compared += 1
    assert compared > 200


def headers(api: Api) -> dict[str, str]:
    return {"Authorization": api.authorization, "X-Namespace": api.namespace}


def test_a_stage_of_the_host_and_a_template_that_computes_are_refused_by_name(shop: Functions) -> None:
    api = shop.api
    api.retriever("hosted", near(), stage("json_transform", template='{"n": {{ DOC.n }}}'))
    error = api("PUT", "/retrievers/hosted/function", status=409)["error"]
    assert error["code"] == "not_a_function"
    assert "The stage 'json_transform' (json_transform) runs on the host" in error["message"]
    api.retriever("upper", stage("attribute_filter", field="text", operator="eq", value="{{INPUT.x|upper}}"))
    assert "{{INPUT.x|upper}} computes" in api("PUT", "/retrievers/upper/function", status=409)["error"]["message"]
    area = {"lat": "{{INPUT.x}}", "lon": 0, "radius": 1}
    api.retriever("geo", stage("attribute_filter", field="at", operator="geo_radius", value=area))
    assert api("PUT", "/retrievers/geo/function", status=409)["error"]["code"] == "not_a_function"
    api("GET", "/retrievers/hosted/function", status=404)
    # What is a function stays one: the change is refused as a whole.
    api.retriever("r", near())
    shop.publish("r")
    assert api.refused("PATCH", "/retrievers/r", {"stages": [stage("json_transform", template="{}")]}, status=422)
    changed = {"stages": [near(), stage("json_transform", template='{"n": {{ DOC.n }}}')]}
    assert api.refused("PATCH", "/retrievers/r", changed, status=409)[0] == "not_a_function"
    assert api("GET", "/retrievers/r")["version"] == 1
    assert len(shop.same("r", V)) == 20


def functions_of(shop: Functions) -> set[str]:
    rows = shop.conn.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = %s::regnamespace", [shop.api.namespace]
    ).fetchall()
    return {row[0] for row in rows}


def test_it_follows_its_retriever_and_goes_with_it(shop: Functions) -> None:
    api = shop.api
    api.retriever("r", near(), stage("limit", limit=3))
    shop.publish("r")
    assert len(shop.same("r", V)) == 3
    shop.conn.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO pg_monitor").format(sql.Identifier(api.namespace, "r")))
    api.retriever("r", near(), stage("limit", limit=5))  # a new version by POST
    assert len(shop.same("r", V)) == 5
    assert api("GET", "/retrievers/r/function")["retriever_version"] == 2
    kept = shop.conn.execute("SELECT proacl::text FROM pg_proc WHERE oid = %s::regproc", [f"{api.namespace}.r"])
    assert "pg_monitor=X" in str(kept.fetchone())
    api(
        "PATCH", "/retrievers/r", {"retriever_name": "s", "stages": [near(), stage("limit", limit="{{INPUT.n}}" and 4)]}
    )
    assert functions_of(shop) == {"s"}
    assert len(shop.same("s", V)) == 4
    # Other parameters are another signature.
    api("PATCH", "/retrievers/s", {"stages": [near(min_score=0.1, filters={"n": "{{INPUT.n}}"})]})
    assert functions_of(shop) == {"s"}
    assert shop.same("s", {**V, "n": 4}) == ["d04"]
    api("PUT", "/retrievers/s/function", {"name": "closest"})
    api("PATCH", "/retrievers/s", {"retriever_name": "r"})
    assert functions_of(shop) == {"closest"}
    view = sql.Identifier(api.namespace, "view")
    called = sql.SQL("SELECT * FROM {}(v => '[1,2]')").format(sql.Identifier(api.namespace, "closest"))
    shop.conn.execute(sql.SQL("CREATE VIEW {} AS {}").format(view, called))
    told = api("DELETE", "/retrievers/r/function", status=409)["error"]
    assert (told["code"], "view" in told["message"]) == ("function_in_use", True)
    api(
        "PATCH", "/retrievers/r", {"stages": [near(filters={"n": "{{INPUT.n}}"})]}
    )  # the same signature: the view stays
    shop.conn.execute(sql.SQL("DROP VIEW {}").format(view))
    api("DELETE", "/retrievers/r/function")
    assert functions_of(shop) == set()
    shop.publish("r")
    api("DELETE", "/retrievers/r")
    assert functions_of(shop) == set()


def test_a_change_that_is_rolled_back_leaves_the_function_as_it_was(shop: Functions) -> None:
    api = shop.api
    api.retriever("r", near())
    api.retriever("taken", near())
    shop.publish("r")
    body = {"retriever_name": "taken", "stages": [near(), stage("limit", limit=1)]}
    assert api.refused("PATCH", "/retrievers/r", body, status=409)[0] == "already_exists"
    assert len(shop.same("r", V)) == 20


def test_it_follows_its_namespace(shop: Functions) -> None:
    """Each of these changes the statement: an index added and dropped, promotion, a mapping."""
    api = shop.api
    api.retriever("r", near())
    api.retriever("other", feature_search(search("far", "{{INPUT.v}}")))
    shop.publish("r")
    shop.publish("other")
    version = "SELECT namespace_version FROM pgretrieve.retriever_functions WHERE namespace_id = %s"
    current = "SELECT version FROM pgretrieve.namespaces WHERE namespace_id = %s"
    api("PATCH", f"/namespaces/{api.namespace}", {"payload_indexes": [{"field_name": "n", "type": "integer"}]})
    api.promote({"add_vectors": [{"name": "text", "dimension": 384, "inference_service": "minilm_l6_v2"}]})
    found = {row[0] for row in shop.conn.execute(version, [api.namespace]).fetchall()}
    assert found == {row[0] for row in shop.conn.execute(current, [api.namespace]).fetchall()}
    shop.same("r", V)
    api("DELETE", f"/namespaces/{api.namespace}/vector-indexes/far?force=true")
    assert "far" in api("GET", "/retrievers/other/function")["broken"]
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no longer fits its namespace"):
        shop.call("other", V)
    api("PATCH", "/retrievers/other", {"stages": [near()]})
    assert api("GET", "/retrievers/other/function")["broken"] is None
    shop.same("other", V)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
HOSTILE = st.sampled_from(
    [
        "$$; DROP TABLE documents; --",
        "'; SELECT 1; --",
        '"; DROP SCHEMA x; --',
        "%(x)s",
        ":name",
        "$function$",
        "\\'",
        "E'\\''",
        "bind.s1_query_1",
        "{{",
        "/*",
        "a\nb",
        "select",
        "strategy",
        "score",
        "payload",
        "v; --",
    ]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=TEXT | HOSTILE, path=TEXT | HOSTILE, literal=TEXT | HOSTILE, value=TEXT | HOSTILE, input_name=TEXT | HOSTILE
)
def test_nothing_that_users_write_is_sql(
    shop: Functions, name: str, path: str, literal: str, value: str, input_name: str
) -> None:
    """Names of retrievers and inputs, paths, constants, values: all is as over the API, and nothing else runs."""
    api = shop.api
    escaped = input_name.replace("\\", "\\\\").replace("'", "\\'")
    conditions = [
        {"field": path, "operator": "ne", "value": "{{INPUT['" + escaped + "']}}"},
        {"field": "text", "operator": "ne", "value": literal},
        {"field": path, "operator": "contains", "value": "x{{INPUT['" + escaped + "']}}y"},
    ]
    body: dict[str, Any] = {
        "retriever_name": name,
        "stages": [near(), stage("attribute_filter", conditions={"OR": conditions})],
    }
    body["input_schema"] = {"v": {"type": "array", "required": True}, input_name: {"type": "string"}}
    made = api.http.post("/retrievers", json=body, headers=headers(api))
    if made.status_code == 422:  # no field, no name, or no template: it is refused before it is stored
        return
    retriever = made.json()["retriever_id"]
    shop.publish(retriever)
    shop.same(retriever, {**V, input_name: value})
    api("DELETE", f"/retrievers/{retriever}")
    assert functions_of(shop) == set()
