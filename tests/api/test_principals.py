"""Keys with a principal: they find what access lists let them, by whatever way, and call nothing else."""

import random
import re
from typing import Any

import httpx
import psycopg
import pytest

from app.api.auth import FOR_PRINCIPALS, operation_of, routes
from app.main import create_app
from app.retrieval.catalog import ACCESS_LISTS
from app.settings import Settings
from tests.http import Api, document, feature_search, search, stage


def key_of(api: Api, principal: str | None, **more: Any) -> str:
    body = {"name": "a principal's", "scopes": ["read"], "principal_id": principal, **more}
    return str(api("POST", "/keys", body)["key"])


class As:
    """The same namespace with another key."""

    def __init__(self, api: Api, key: str) -> None:
        self.api, self.headers = api, {"Authorization": f"Bearer {key}"}

    def __call__(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        return self.api(method, path, body, status=status, headers=self.headers)


def as_principal(api: Api, principal: str) -> As:
    return As(api, key_of(api, principal))


LISTS: dict[str, Any] = {
    "none": None,
    "empty": {},
    "public": {"public": True},
    "read": {"read": ["anna", "ben"]},
    "write": {"write": ["anna"]},
    "other": {"read": ["ben"], "write": ["carl"]},
}
SEEN = ["public", "read", "write"]
CONFIGS = [
    {"name": "v", "dimension": 2},
    {"name": "s", "dimension": 10, "kind": "sparse", "metric": "dot"},
    {"name": "m", "dimension": 2, "kind": "multi"},
]


@pytest.fixture
def shop(api: Api) -> Api:
    api("POST", "/namespaces/standalone", {"namespace_id": api.namespace, "vector_configs": CONFIGS})
    sent = []
    for n, (name, acl) in enumerate(LISTS.items()):
        vectors = {"v": [1, n], "s": {"indices": [n, 9], "values": [1, 1]}, "m": [[1, n], [n, 1]]}
        made = document(name, vectors, title=f"amplifier {name}", kind=f"of {name}", price=n)
        sent.append(made if acl is None else made | {"acl": acl})
    api.upsert(sent)
    return api


STAGES: dict[str, list[dict[str, Any]]] = {
    "dense": [feature_search(search("v", [1, 0]))],
    "exact dense": [feature_search(search("v", [1, 0], filters={"must": [{"key": "price", "range": {"gte": 0}}]}))],
    "sparse": [feature_search(search("s", {"indices": [9], "values": [1]}))],
    "multi": [feature_search(search("m", [[1, 0]]))],
    "words": [feature_search(search("lexical", "amplifier", mode="text", lexical=True))],
    "hybrid": [feature_search(search("v", [1, 0]), search("lexical", "amplifier", mode="text", lexical=True))],
    "everything": [stage("limit", limit=100)],
    "filter": [stage("attribute_filter", field="price", operator="gte", value=0)],
    "sorted": [stage("sort_attribute", sort_field="price")],
    "late interaction": [feature_search(search("v", [1, 0])), stage("maxsim_rerank", feature_uri="m", query=[[1, 0]])],
    "diverse": [feature_search(search("v", [1, 0])), stage("mmr", diversity_feature_uri="v")],
}


def run(caller: Any, stages: list[dict[str, Any]], **more: Any) -> Any:
    return caller("POST", "/retrievers/execute", {"stages": stages, **more})


def ids(answer: Any, field: str = "documents") -> list[str]:
    return sorted(one["document_id"] for one in answer[field])


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("name", STAGES)
def test_every_way_to_documents_finds_what_the_principal_may_read(shop: Api, name: str, declared: bool) -> None:
    if declared:
        fields = [{"field_name": "title", "type": "text"}, {"field_name": "price", "type": "integer"}]
        shop("PATCH", f"/namespaces/{shop.namespace}", {"payload_indexes": fields})
    anna = as_principal(shop, "anna")
    assert ids(run(shop, STAGES[name])) == sorted(LISTS), "a key without a principal reads all"
    answer = run(anna, STAGES[name])
    assert ids(answer) == SEEN
    assert not any("_acl" in one["_internal"] for one in answer["documents"])
    assert ids(run(as_principal(shop, "nobody"), STAGES[name])) == ["public"]
    assert ids(run(shop, STAGES[name])) == sorted(LISTS)


@pytest.mark.parametrize("name", ["dense", "sparse", "multi", "words"])
def test_hidden_documents_take_no_places(shop: Api, name: str) -> None:
    fields = [{"field_name": "title", "type": "text"}]
    shop("PATCH", f"/namespaces/{shop.namespace}", {"payload_indexes": fields})
    (stage_,) = STAGES[name]
    (asked,) = stage_["config"]["parameters"]["searches"]
    few = [feature_search({**asked, "top_k": 3}, final_top_k=3)]
    assert ids(run(as_principal(shop, "anna"), few)) == SEEN


def test_lists_counts_and_aggregates_are_of_what_is_theirs(shop: Api) -> None:
    anna, c = as_principal(shop, "anna"), "/collections/_direct_upsert/documents"
    listed = anna("POST", f"{c}/list", {"include_total": True})
    assert ids(listed, "results") == SEEN
    assert listed["total_documents"] in (None, 3)
    assert listed["pagination"].get("total") in (None, 3)
    assert ids(anna("POST", "/documents/list", {}), "results") == SEEN
    assert ids(anna("POST", "/documents/list", {"search": "amplifier"}), "results") == SEEN
    pages = anna("POST", "/documents/list", {"limit": 2})
    rest = anna("POST", "/documents/list", {"limit": 2, "cursor": pages["pagination"]["next_cursor"]})
    assert ids(pages, "results") + ids(rest, "results") == SEEN
    groups = anna("POST", f"{c}/list", {"group_by": "kind"})["groups"]
    assert sorted(group["group_key"] for group in groups) == [f"of {name}" for name in SEEN]
    assert anna("GET", f"{c}/count")["count"] == 3
    got = anna("POST", "/documents/batch-get", {"document_ids": ["read", "other", "none", "nowhere"]})
    assert (ids(got), got["not_found"]) == (["read"], ["other", "none", "nowhere"])
    assert ids(anna("POST", "/documents/search", {})) == SEEN


def test_a_hidden_document_answers_as_one_that_is_not_there(shop: Api) -> None:
    anna = as_principal(shop, "anna")
    for path in (
        "/documents/{}",
        "/collections/_direct_upsert/documents/{}",
        f"/namespaces/{shop.namespace}/documents/{{}}",
    ):
        assert anna("GET", path.format("read"))["title"] == "amplifier read"
        hidden = anna("GET", path.format("other"), status=404)
        absent = anna("GET", path.format("abcde"), status=404)
        assert str(hidden).replace("other", "abcde") == str(absent)
    like = [
        feature_search(
            {"feature_uri": "v", "query": {"input_mode": "document", "document_ref": {"document_id": "{{INPUT.d}}"}}}
        )
    ]
    schema = {"d": {"type": "string", "required": True}}
    asked = {"stages": like, "input_schema": schema}
    found = anna("POST", "/retrievers/execute", {**asked, "inputs": {"d": "read"}})
    assert ids(found) == ["public", "write"]
    answers = [
        anna("POST", "/retrievers/execute", {**asked, "inputs": {"d": name}}, status=422)
        for name in ("other", "nowhere")
    ]
    assert answers[0] == answers[1]


def test_facets_groups_and_joined_documents_are_theirs(shop: Api) -> None:
    anna = as_principal(shop, "anna")
    answer = run(anna, [feature_search(search("v", [1, 0]), facets=["kind"])])
    assert sorted(value["value"] for value in answer["facets"][0]["values"]) == [f"of {name}" for name in SEEN]
    assert answer["pagination"].get("total") in (None, 3)
    shop.upsert(
        [
            document("p", {"v": [1, 0]}, other=name) | {"document_id": f"to {name}", "acl": {"public": True}}
            for name in LISTS
        ]
    )
    enrich = stage(
        "document_enrich",
        target_collection_id="_direct_upsert",
        source_field="other",
        target_field="document_id",
        output_field="found",
    )
    answer = run(anna, [stage("attribute_filter", field="other", operator="exists", value=True), enrich])
    joined = {one["other"]: (one.get("found") or {}).get("document_id") for one in answer["documents"]}
    assert joined == {name: name if name in SEEN else None for name in LISTS}
    aggregated = run(anna, [stage("aggregate", aggregations=[{"function": "count", "alias": "n"}])])
    assert "'n': 9" in str(aggregated) or '"n": 9' in str(aggregated)


def test_principals_share_plans_and_nothing_else(shop: Api) -> None:
    shop.retriever("near", *STAGES["dense"])
    callers = {name: as_principal(shop, name) for name in ("anna", "ben", "carl", "nobody")}
    seen = {"anna": SEEN, "ben": ["other", "public", "read"], "carl": ["other", "public"], "nobody": ["public"]}
    for _ in range(3):
        for name, caller in callers.items():
            assert ids(caller("POST", "/retrievers/near/execute", {})) == seen[name]
        assert shop.ids("near") == list(LISTS)


def test_a_cursor_of_another_key_leads_to_ones_own_rows(shop: Api) -> None:
    shop.retriever("near", *STAGES["dense"])
    anna = as_principal(shop, "anna")
    page = shop.execute("near", pagination={"method": "cursor", "limit": 2})
    following = {"pagination": {"method": "cursor", "limit": 10, "cursor": page["pagination"]["cursor"]}}
    assert set(ids(anna("POST", "/retrievers/near/execute", following))) <= set(SEEN)


def test_statements_and_estimates_are_not_told(shop: Api) -> None:
    shop.retriever("near", *STAGES["exact dense"])
    anna = as_principal(shop, "anna")
    refused = anna("POST", "/retrievers/near/execute", {"explain": True}, status=403)
    assert refused["error"]["code"] == "not_for_principals"
    assert "estimated" not in str(anna("POST", "/retrievers/near/execute", {}))


def test_a_stream_is_theirs_too(shop: Api) -> None:
    key = key_of(shop, "anna")
    shop.retriever("near", *STAGES["dense"])
    headers = {"Authorization": f"Bearer {key}", "X-Namespace": shop.namespace}
    with shop.http.stream("POST", "/retrievers/near/execute", json={"stream": True}, headers=headers) as answer:
        told = answer.read().decode()
    assert all(f'"{name}"' in told for name in SEEN)
    assert not any(f'"{name}"' in told for name in ("empty", "other"))


@pytest.mark.parametrize("scopes", [["read", "write"], ["manage"], ["admin"], ["*"]])
def test_such_a_key_only_reads(api: Api, scopes: list[str]) -> None:
    body = {"name": "k", "scopes": scopes, "principal_id": "anna"}
    _, problems = api.refused("POST", "/keys", body)
    assert {problem.split("@")[0] for problem in problems} == {"scope_of_no_principal"}


@pytest.mark.parametrize("principal", ["", "*", "a\0b", "x" * 201])
def test_what_is_no_principal_is_refused(api: Api, principal: str) -> None:
    body = {"name": "k", "scopes": ["read"], "principal_id": principal}
    assert api.refused("POST", "/keys", body)[1] == ["bad_principal@body.principal_id"]


def test_a_key_shows_whose_it_is_and_stays_it_when_it_is_rotated(shop: Api) -> None:
    made = shop("POST", "/keys", {"name": "k", "scopes": ["read"], "principal_id": "anna"})
    assert made["principal_id"] == "anna"
    rotated = shop("POST", f"/keys/{made['key_id']}/rotate", {})
    assert rotated["principal_id"] == "anna"
    for key in (made["key"], rotated["key"]):
        assert ids(run(As(shop, key), STAGES["everything"])) == SEEN


def test_every_route_is_allowed_by_name_or_refused(api: Api) -> None:
    api.standalone(("v", 2))
    key = key_of(api, "anna")
    headers = {"Authorization": f"Bearer {key}", "X-Namespace": api.namespace}
    app = create_app(Settings(), "postgresql://nowhere")
    there = {operation_of(handler) for path, _, handler in routes(app) if path.startswith("/v1/")}
    assert there > FOR_PRINCIPALS
    seen = set()
    for path, method, handler in routes(app):
        if not path.startswith("/v1/"):
            continue
        place = re.sub(r"{namespace_id[^}]*}", api.namespace, path.removeprefix("/v1"))
        place = re.sub(r"{[^}]*}", "x", re.sub(r"{[^}]*:int}", "1", place))
        answer = httpx.request(method, f"{str(api.http.base_url).rstrip('/')}{place}", headers=headers, timeout=30)
        if operation_of(handler) in FOR_PRINCIPALS:
            assert answer.status_code not in (401, 403, 500), (method, path, answer.text)
        else:
            assert answer.status_code == 403, (method, path, answer.text)
            assert answer.json()["error"]["code"] in ("not_for_principals", "forbidden"), answer.text
            if handler.opt["scope"] == "read":
                assert answer.json()["error"]["code"] == "not_for_principals"
        seen.add(operation_of(handler))
    assert seen == there


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_few_that_are_visible_are_all_found(api: Api, share: float) -> None:
    """As many rows as are asked for, where so many are theirs."""
    api.standalone(("v", 8))
    source = random.Random(7)
    vectors = {f"d{n:04}": [source.gauss(0, 1) for _ in range(8)] for n in range(4000)}
    theirs = {name for name in vectors if source.random() < share}
    every = [
        document(name, {"v": vector}) | {"acl": {"read": ["anna"] if name in theirs else ["ben"]}}
        for name, vector in vectors.items()
    ]
    for first in range(0, len(every), 1000):
        api.upsert(every[first : first + 1000])
    anna = as_principal(api, "anna")
    for _ in range(5):
        query = [source.gauss(0, 1) for _ in range(8)]
        answer = run(anna, [feature_search(search("v", query, top_k=20), final_top_k=20)])
        best = sorted(theirs, key=lambda name: -cosine(query, vectors[name]))[:20]
        found = [one["document_id"] for one in answer["documents"]]
        assert len(found) == len(best) == 20
        assert set(found) <= theirs
        assert len(set(found) & set(best)) >= 18


def cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return float(product / (sum(a * a for a in one) * sum(b * b for b in other)) ** 0.5)


def test_a_namespace_of_before_shows_a_principal_nothing(shop: Api, conninfo: str) -> None:
    anna = as_principal(shop, "anna")
    for revision, seen in ((0, []), (ACCESS_LISTS, SEEN)):
        with psycopg.connect(conninfo) as conn:
            conn.execute(
                "UPDATE pgretrieve.namespaces SET schema_revision = %s, version = version + 1 WHERE namespace_id = %s",
                [revision, shop.namespace],
            )
        assert ids(run(anna, STAGES["dense"])) == seen
        assert ids(run(anna, STAGES["everything"])) == seen
        anna("GET", "/documents/public", status=200 if seen else 404)
