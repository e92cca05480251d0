"""What indexes of payload fields serve is what the filter itself passes, for every payload; and they are used."""

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import hypothesis
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex

from app.db.ddl import documents_table
from app.db.payload_ddl import physical_index
from app.retrieval.catalog import Catalog, FieldIndex, Fields, FieldType
from app.retrieval.field_indexes import kinds
from app.retrieval.filters import Filter
from app.retrieval.indexed import Indexes, advice, indexed, narrows, unindexed
from app.retrieval.literals import lift_values
from app.retrieval.plan import Binds, render
from app.retrieval.predicates import predicate
from tests import filtering
from tests.db import test_filters_as_python as language_a
from tests.db import test_filters_as_qdrant as language_b
from tests.filtering import parsed

DIALECT = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
SCHEMA = "payload_indexes"
DOCUMENTS = documents_table(SCHEMA, ()).alias("d")
HOSTILE = 'it\'s \\ 100% "%(x)s" :y {}'
Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(conninfo: str) -> Iterator[Connection]:
    with psycopg.connect(conninfo) as conn:
        conn.execute(f"CREATE SCHEMA {SCHEMA}")
        conn.execute(
            f"CREATE TABLE {SCHEMA}.documents (document_id text PRIMARY KEY, collection_id text, "
            "payload jsonb NOT NULL, metadata jsonb)"
        )
        # Indexes serve wherever they can, so that it is they who answer.
        conn.execute("SET LOCAL enable_seqscan = off")
        yield conn
        conn.rollback()


def store(conn: Connection, payloads: list[Any], metadata: Any = None) -> None:
    with conn.cursor().copy(f"COPY {SCHEMA}.documents FROM STDIN") as copy:
        for n, payload in enumerate(payloads):
            copy.write_row((str(n), f"c{n % 3}", json.dumps(payload), json.dumps(metadata or {})))


def index(conn: Connection, types: Mapping[str, FieldType]) -> Indexes:
    found = {}
    for n, (field, type_) in enumerate(types.items(), start=1):
        found[field] = FieldIndex(field, type_, "ready", "declared", n)
        for kind in kinds(found[field]):
            text = str(CreateIndex(physical_index(SCHEMA, found[field], kind)).compile(dialect=DIALECT))
            conn.execute(text.encode(), {})
    conn.execute(f"ANALYZE {SCHEMA}.documents")
    return found


def passing(conn: Connection, filter_: Filter, indexes: Indexes | None, inputs: dict[str, Any]) -> list[int]:
    """The numbers of the documents that the filter keeps: as it stands, or by indexes."""
    statement, binds = select(filter_, indexes)
    return sorted(int(row[0]) for row in conn.execute(render(statement), filtering.values_of(binds, inputs)))


def select(filter_: Filter, indexes: Indexes | None, *, estimate: bool = False) -> tuple[sa.Select[Any], Binds]:
    binds, fields = Binds(), Fields(DOCUMENTS)
    if indexes is None:
        holds = predicate(filter_, fields, binds, "filter")
    else:
        holds = indexed(filter_, fields, binds, "filter", indexes, estimate=estimate)
    return sa.select(DOCUMENTS.c.document_id).where(holds), binds


def plan(conn: Connection, filter_: Filter, indexes: Indexes, *, estimate: bool = False) -> dict[str, Any]:
    statement, binds = select(filter_, indexes, estimate=estimate)
    row = conn.execute(f"EXPLAIN (FORMAT JSON) {render(statement)}", filtering.values_of(binds)).fetchone()
    assert row is not None
    found: dict[str, Any] = row[0][0]["Plan"]
    return found


# The property: they serve what filters pass


def compare(conn: Connection, draw: random.Random, raw: Any, indexes: Indexes) -> bool:
    """Whether the filter tells documents apart; with its values in the text, and brought by the request."""
    filter_, inputs = parsed(raw), dict[str, Any]()
    if draw.random() < 0.5:
        lifted, inputs = lift_values(filter_)
        assert lifted is not None
        filter_ = lifted
    plain, served = passing(conn, filter_, None, inputs), passing(conn, filter_, indexes, inputs)
    assert plain == served, json.dumps(raw)
    return bool(plain)


FILTERS = 200
TYPES: dict[str, FieldType] = {"a": "float", "b": "integer", "a.b": "datetime", "b.a": "keyword", "place": "geo"}


@pytest.mark.parametrize("seed", range(2))
def test_indexes_serve_what_filters_pass(conn: Connection, seed: int) -> None:
    draw = random.Random(seed)
    store(conn, [filtering.payload(draw) for _ in range(300)])
    indexes = index(conn, TYPES | {"c": draw.choice(["bool", "datetime"])})
    told = served = 0
    for _ in range(FILTERS):
        raw = draw.choice([language_a.group, language_b.group, can_be_served])(draw, 2)
        told += compare(conn, draw, raw, indexes)
        served += narrows(parsed(raw), indexes)
    assert told > FILTERS / 3
    assert served > FILTERS / 4


def can_be_served(draw: random.Random, depth: int) -> Any:
    """A group of conditions that indexes serve, of both languages, several bounds of a field among them."""
    field, bounds = draw.choice(["a", "b", "a.b", "c"]), [*filtering.NUMBERS, *filtering.TEXTS, *filtering.TIMES]
    some = [one for one in (filtering.scalar(draw) for _ in range(4)) if one is not None]
    conditions: list[Any] = [
        {"field": field, "operator": draw.choice(["gt", "gte", "lt", "lte"]), "value": draw.choice(bounds)}
        for _ in range(draw.choice([1, 2, 3]))
    ]
    conditions.append(
        draw.choice([{field: some[0]} if some else {field: 1}, {"field": field, "operator": "in", "value": some}])
    )
    conditions.append({"key": field} | draw.choice([{"match": {"value": "red"}}, {"range": {"gte": 0, "lt": 2}}]))
    conditions.append({"key": field, "range": {"gt": draw.choice(filtering.TIMES[:3]), "lte": "2024-06-01T12:00:00Z"}})
    kept = draw.sample(conditions, draw.choice([1, 2, 3]))
    return {
        draw.choice(["AND", "AND", "OR"]): [*kept, *([can_be_served(draw, 0)] if depth and draw.random() < 0.3 else [])]
    }


# What is too long for an index, or hard to write, is compared all the same

LONG = ["x" * 200, "x" * 201, "x" * 300, "x" * 199 + "y" * 9_000, "é" * 150, "é" * 201, HOSTILE, "\t\x7f\x1f", ""]
DIGITS = "123456789" * 400
HUGE = [
    *(
        10**300,
        10**1_400,
        10**1_400 + 1,
        -(10**1_400) - 1,
        int(DIGITS),
        int(DIGITS) + 1,
        -int(DIGITS),
        int(DIGITS[:900]),
    ),
    *(1e-300, -1e-300, 0.0, -0.0, 1e300, 0.1, 0.10000000000000001),
]
OPERATORS = st.sampled_from(["eq", "in", "gt", "gte", "lt", "lte"])


FRACTIONS = [f"0.{'0' * zeros}{DIGITS[:digits]}" for zeros in (0, 5, 400) for digits in (900, 1_300, 3_000)]
FRACTIONS += [f"{DIGITS[:whole]}.{DIGITS}" for whole in (1, 999, 1_000, 1_001, 1_300)]


@given(st.data())
@hypothesis.settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_too_long_for_an_index_is_compared_as_the_whole(conn: Connection, data: st.DataObject) -> None:
    scalars = st.sampled_from([*LONG, *HUGE, True])
    if not conn.execute(f"SELECT FROM {SCHEMA}.documents").fetchall():
        payloads = [
            json.dumps({HOSTILE: value}) for value in [*LONG, *HUGE, [*LONG], [*HUGE], [HUGE[1], LONG[3], True]]
        ]
        payloads += [f"{{{json.dumps(HOSTILE)}: {sign}{number}}}" for number in FRACTIONS for sign in ("", "-")]
        with conn.cursor().copy(f"COPY {SCHEMA}.documents FROM STDIN") as copy:
            for n, payload in enumerate(payloads):
                copy.write_row((str(n), "c", payload, "{}"))
        index(conn, {HOSTILE: "float"})
    served = {HOSTILE: FieldIndex(HOSTILE, "float", "ready", "declared", 1)}
    conditions = []
    for operator in data.draw(st.lists(OPERATORS, min_size=1, max_size=3)):
        value = data.draw(scalars if operator in ("eq", "in") else st.sampled_from([*LONG, *HUGE]))
        conditions.append({"field": HOSTILE, "operator": operator, "value": [value] if operator == "in" else value})
    filter_ = parsed({"AND": conditions})
    assert passing(conn, filter_, None, {}) == passing(conn, filter_, served, {})


# That they are used, and known


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


FILL = f"""
    INSERT INTO {SCHEMA}.documents SELECT n::text, 'c' || n % 10, jsonb_build_object(
        'word', CASE WHEN n % 2 = 0 THEN 'half' WHEN n % 10 = 1 THEN 'tenth' WHEN n % 100 = 3 THEN 'hundredth'
            ELSE 'w' || n END,
        'tags', ARRAY[CASE WHEN n % 10 = 0 THEN 'tenth' ELSE 'rest' END, 't' || n % 7],
        'chance', n * 7919 % 20000 / 20000.0,
        'day', to_char(date '2020-01-01' + n * 7919 % 20000 / 20, 'YYYY-MM-DD')), '{{}}'
    FROM generate_series(0, 19999) AS n
"""
KEPT: list[tuple[Any, int]] = [
    ({"word": "half"}, 10_000),
    ({"word": "hundredth"}, 200),
    ({"field": "word", "operator": "in", "value": ["tenth", "hundredth"]}, 2_200),
    ({"tags": "tenth"}, 2_000),
    ({"must": [{"key": "word", "match": {"value": "hundredth"}}]}, 200),
    ({"must_not": [{"key": "word", "match": {"value": "half"}}]}, 10_000),
    (
        [{"field": "chance", "operator": "gte", "value": 0.2}, {"field": "chance", "operator": "lt", "value": 0.7}],
        10_000,
    ),
    ([{"field": "chance", "operator": "gte", "value": 0.2}, {"field": "chance", "operator": "lt", "value": 0.21}], 200),
    ({"field": "chance", "operator": "lt", "value": 0.001}, 20),
    ({"must": [{"key": "chance", "range": {"gte": 0.2, "lt": 0.21}}]}, 200),
    (
        [{"field": "day", "operator": "gte", "value": "2021"}, {"field": "day", "operator": "lt", "value": "2022"}],
        7_300,
    ),
    ({"field": "document_id", "operator": "in", "value": ["1", "2", "3", 4]}, 3),
    ({"collection_id": "c1"}, 2_000),
]


def test_their_estimates_are_near_and_they_are_used(conn: Connection) -> None:
    conn.execute(FILL)
    conn.execute(f"CREATE INDEX ON {SCHEMA}.documents (collection_id)")
    indexes = index(conn, {"word": "keyword", "tags": "keyword", "chance": "float", "day": "datetime"})
    for raw, kept in KEPT:
        filter_ = parsed(raw)
        assert len(passing(conn, filter_, indexes, {})) == kept
        estimated = plan(conn, filter_, indexes, estimate=True)["Plan Rows"]
        assert 0.8 * kept <= estimated <= 1.2 * kept or abs(estimated - kept) < 10, (raw, kept, estimated)
        if "must_not" not in raw:
            assert narrows(filter_, indexes)
            kinds_of_nodes = {node["Node Type"] for node in nodes(plan(conn, filter_, indexes))}
            assert kinds_of_nodes & {"Bitmap Index Scan", "Index Scan", "Index Only Scan"}, raw


def test_what_no_index_serves_is_told() -> None:
    indexes = (
        FieldIndex("word", "keyword", "ready", "declared", 1),
        FieldIndex("late", "float", "building", "adaptive", 2),
        FieldIndex("broken", "integer", "failed", "declared", 3),
    )
    catalog = Catalog("n", "n", "n", "standalone", 1, False, (), {}, payload_indexes=indexes)
    filter_ = parsed(
        {
            "must": [
                *({"key": key, "match": {"value": "x"}} for key in ("word", "tag", "items[].tag", "document_id")),
                *({"key": key, "range": {"gte": 1.5}} for key in ("word", "late", "broken", "a[][]", "price")),
                {"key": "day", "range": {"lt": "2024-01-01"}},
                {"field": "n", "operator": "eq", "value": 1},
                {"field": "_internal.created_at", "operator": "gt", "value": "2024"},
                {"field": "free", "operator": "regex", "value": "x"},
            ],
            "must_not": [{"key": "other", "match": {"value": "x"}}],
        }
    )
    assert unindexed(filter_, catalog) == [
        *(("tag", "keyword"), ("items.tag", "keyword"), ("word", "float"), ("late", "float"), ("broken", "float")),
        *(("price", "float"), ("day", "datetime"), ("n", "integer")),
    ]
    said = {message.split("'")[1]: message for message in advice(filter_, catalog)}
    assert said["price"] == (
        "The filter on 'price' reads every document; declare a payload index: "
        'PATCH /v1/namespaces/n {"payload_indexes": [{"field_name": "price", "type": "float"}]}.'
    )
    assert "is of type keyword" in said["word"]
    assert "until its payload index is built" in said["late"]
    assert "ensure-indexes" in said["broken"]


# Geo fields


def area(draw: random.Random) -> dict[str, Any]:
    """An area anywhere, from metres to all of the earth, over poles and the 180th meridian, too."""
    lat, lon = draw.uniform(-90, 90), draw.choice([draw.uniform(-180, 180), 179.9, -180.0])
    size = 10 ** draw.uniform(-4, 2)
    match draw.randrange(3):
        case 0:
            return {"geo_radius": {"center": {"lat": lat, "lon": lon}, "radius": size * 200_000}}
        case 1:
            top, bottom = min(lat + size, 90), max(lat - size, -90)
            left, right = ((lon + 180 + by) % 360 - 180 for by in (-size, size))
            corners = {"top_left": {"lat": top, "lon": left}, "bottom_right": {"lat": bottom, "lon": right}}
            return {"geo_bounding_box": corners}
        case _:
            points = [{"lat": lat, "lon": lon}]
            points += [{"lat": draw.uniform(-90, 90), "lon": draw.uniform(-180, 180)} for _ in range(2)]
            return {"geo_polygon": {"exterior": {"points": [*points, points[0]]}}}


def test_cells_find_every_point_of_an_area(conn: Connection) -> None:
    draw = random.Random(5)
    points = [
        {"lat": draw.uniform(-90, 90), "lon": draw.choice([draw.uniform(-180, 180), 180, -180])} for _ in range(400)
    ]
    near = [{"lat": 48.1 + draw.gauss(0, 0.01), "lon": 11.6 + draw.gauss(0, 0.01)} for _ in range(100)]
    lists: list[Any] = [[a, b] for a, b in zip(points[:50], near[:50], strict=True)]
    pairs: list[Any] = [[point["lon"], point["lat"]] for point in points[:50]]
    odd: list[Any] = [{"lat": 91, "lon": 0}, {"lat": "1", "lon": 0}, [], None, [1, 2, 3], {"lat": 1e300, "lon": 5}]
    store(conn, [{"at": {"place": place}} for place in [*points, *near, *lists, *pairs, *odd]])
    indexes = index(conn, {"at.place": "geo"})
    told = 0
    for _ in range(150):
        raw = {"must": [{"key": "at.place"} | area(draw)]}
        ((shape, value),) = area(draw).items()
        told += compare(conn, draw, raw, indexes)
        told += compare(conn, draw, {"field": "at.place", "operator": shape, "value": value}, indexes)
    assert told > 100
    munich = {"center": {"lat": 48.1, "lon": 11.6}, "radius": 5_000}
    found = plan(conn, parsed({"key": "at.place", "geo_radius": munich}), indexes, estimate=True)
    assert "payload_1_cells" in json.dumps(found)
    assert 50 <= found["Plan Rows"] <= 300
