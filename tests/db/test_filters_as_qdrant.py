"""Language B finds what the embedded Qdrant engine finds, for random payloads and filters, with no difference.

Left out are what the engine's Python package cannot ask (booleans in `match`, which it takes for integers, and
`match` with other numbers or mixed lists), and what docs/filters.md names as different.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import qdrant_edge as q

from app.retrieval.filters import Condition
from app.retrieval.keyed import implied
from tests.filtering import NUMBERS, TEXTS, TIMES, parsed, passing, payload, point, store

KEYS = [
    "a",
    "a",
    "b",
    "c",
    "a.b",
    "a.b.c",
    "a[]",
    "a[].b",
    "a[].b[]",
    "b[].a",
    "a[0]",
    "a[1].b",
    "a[][]",
    '"a.b"',
    "b.0",
    "no",
]
INTEGERS = [number for number in NUMBERS if isinstance(number, int)]


FILLING = [f'n{i}\n"\x1f\x7f' for i in range(40)]


# Random filters of language B


def bounds(draw: random.Random, choices: list[Any]) -> dict[str, Any]:
    names = draw.choice([["gt"], ["gte"], ["lt"], ["lte"], ["gte", "lt"], ["gt", "lte"], ["gte", "lte"]])
    return {name: draw.choice(choices) for name in names}


def ring(draw: random.Random) -> dict[str, Any]:
    """A triangle or a quadrilateral around some place, closed."""
    lon, lat, size = draw.uniform(-5, 5), draw.uniform(-5, 5), draw.choice([1.0, 5.0, 30.0])
    corners = draw.choice(
        [[(-1, -1), (1, -1), (0, 1)], [(-1, -1), (1, -1), (1, 1), (-1, 1)], [(0, 0), (2, 0), (2, 2), (0, 2)]]
    )
    places = [{"lon": round(lon) + x * size, "lat": round(lat) + y * size} for x, y in corners]
    return {"points": [*places, places[0]]}


def question(draw: random.Random) -> dict[str, Any]:
    words = [*TEXTS, "red car", "car red", "ed", "café", "-"]
    match draw.randrange(14):
        case 0 | 1:
            return {"match": {"value": draw.choice([*TEXTS, *INTEGERS])}}
        case 2:
            long = [draw.sample(TEXTS, 3) + FILLING, draw.sample(INTEGERS, 2) + list(range(1_000, 1_040))]
            return {"match": {"any": draw.choice([draw.sample(TEXTS, 3), draw.sample(INTEGERS, 2), [], *long])}}
        case 3:
            return {"match": {"except": draw.choice([draw.sample(TEXTS, 3), draw.sample(INTEGERS, 2), []])}}
        case 4 | 5:
            how = draw.choice(["text", "text_any", "phrase", "prefix", "substring"])
            return {"match": {how: draw.choice(words)}}
        case 6 | 7:
            return {"range": bounds(draw, NUMBERS)}
        case 8:
            return {"range": bounds(draw, [time for time in TIMES if time not in ("2024-02-30", "20240101")])}
        case 9:
            return {"values_count": bounds(draw, [0, 1, 2, 3])}
        case 10:
            return {draw.choice(["is_empty", "is_null"]): draw.choice([True, False])}
        case 11:
            return {"geo_radius": {"center": point(draw), "radius": draw.choice([0, 1_000, 300_000, 5e6, 3e7])}}
        case 12:
            return {"geo_bounding_box": {"top_left": point(draw), "bottom_right": point(draw)}}
    interiors = [ring(draw)] if draw.random() < 0.3 else []
    return {"geo_polygon": {"exterior": ring(draw), "interiors": interiors}}


def condition(draw: random.Random, depth: int, nested: bool) -> dict[str, Any]:
    key, kind = draw.choice(KEYS), draw.random()
    if depth and kind < 0.15:
        return group(draw, depth - 1, nested)
    if depth and kind < 0.25:
        return {"nested": {"key": key, "filter": group(draw, depth - 1, True)}}
    if kind < 0.32:
        return {draw.choice(["is_empty", "is_null"]): {"key": key}}
    if kind < 0.34 and not nested:
        return {"has_id": [str(draw.randrange(100)) for _ in range(20)]}
    asked = question(draw)
    near = any(name.startswith("geo_") for name in asked) and draw.random() < 0.8
    return {"key": "place" if near else key} | asked


def group(draw: random.Random, depth: int, nested: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in draw.sample(["must", "should", "must_not", "min_should"], draw.choice([1, 1, 1, 2])):
        conditions = [condition(draw, depth, nested) for _ in range(draw.choice([1, 2, 2, 3]))]
        made[name] = {"conditions": conditions, "min_count": draw.randrange(4)} if name == "min_should" else conditions
    return made


# The same filters as the engine's objects


def as_filter(raw: dict[str, Any]) -> q.Filter:
    groups: dict[str, Any] = {
        name: [as_condition(item) for item in raw[name]] for name in ("must", "should", "must_not") if name in raw
    }
    if least := raw.get("min_should"):
        groups["min_should"] = q.MinShould([as_condition(item) for item in least["conditions"]], least["min_count"])
    return q.Filter(**groups)


def as_condition(raw: dict[str, Any]) -> Any:
    match raw:
        case {"nested": {"key": key, "filter": inner}}:
            return q.NestedCondition(key, as_filter(inner))
        case {"is_empty": {"key": key}}:
            return q.IsEmptyCondition(key)
        case {"is_null": {"key": key}}:
            return q.IsNullCondition(key)
        case {"has_id": ids}:
            return q.HasIdCondition({int(one) for one in ids})
        case {"key": key, **rest}:
            (name, asked), *_ = rest.items()
            return q.FieldCondition(key, **{name: as_test(name, asked)})
    return as_filter(raw)


MATCHES = {
    "value": q.MatchValue,
    "any": q.MatchAny,
    "except": q.MatchExcept,
    "text": q.MatchText,
    "text_any": q.MatchTextAny,
    "phrase": q.MatchPhrase,
    "prefix": q.MatchPrefix,
    "substring": q.MatchSubstring,
}


def as_test(name: str, asked: Any) -> Any:
    match name:
        case "match":
            ((how, wanted),) = asked.items()
            return MATCHES[how](wanted)
        case "range":
            dates = isinstance(next(iter(asked.values())), str)
            return q.RangeDateTime(**asked) if dates else q.RangeFloat(**asked)
        case "values_count":
            return q.ValuesCount(**asked)
        case "geo_radius":
            return q.GeoRadius(q.GeoPoint(**asked["center"]), asked["radius"])
        case "geo_bounding_box":
            return q.GeoBoundingBox(q.GeoPoint(**asked["top_left"]), q.GeoPoint(**asked["bottom_right"]))
        case "geo_polygon":
            rings = [[q.GeoPoint(**one) for one in ring["points"]] for ring in (asked["exterior"], *asked["interiors"])]
            return q.GeoPolygon(rings[0], rings[1:] or None)
    return asked


class Engine:
    """Qdrant's engine with these payloads, numbered from 0."""

    def __init__(self, folder: Path, payloads: list[dict[str, Any]]) -> None:
        config = q.EdgeConfig(vectors=q.EdgeVectorParams(size=1, distance=q.Distance.Dot))
        self.size = len(payloads)
        self.shard = q.EdgeShard.create(str(folder), config)
        points = [q.Point(n, [1.0], payload) for n, payload in enumerate(payloads)]
        self.shard.update(q.UpdateOperation.upsert_points(points))

    def passing(self, raw: dict[str, Any]) -> list[int]:
        request = q.ScrollRequest(limit=self.size, filter=as_filter(raw), with_payload=False, with_vector=False)
        return sorted(int(str(record.id)) for record in self.shard.scroll(request)[0])


@pytest.fixture
def conn(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(conninfo) as conn:
        yield conn
        conn.rollback()


def compare(conn: psycopg.Connection[Any], folder: Path, seed: int, payloads: int, filters: int) -> None:
    draw = random.Random(seed)
    stored = [payload(draw) for _ in range(payloads)]
    store(conn, stored)
    engine = Engine(folder, stored)
    told = 0
    for _ in range(filters):
        raw = group(draw, depth=2)
        ours, theirs = passing(conn, parsed(raw)), engine.passing(raw)
        differing = [stored[n] for n in sorted({*ours} ^ {*theirs})[:3]]
        assert ours == theirs, f"{json.dumps(raw)}\non {json.dumps(differing)}"
        told += 0 < len(theirs) < payloads
    assert told > filters * 0.4  # or the comparison would prove little
    engine.shard.close()


def test_finds_what_the_engine_finds(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    compare(conn, tmp_path, seed=1, payloads=800, filters=300)


def test_what_a_condition_implies_finds_no_less(conn: psycopg.Connection[Any]) -> None:
    draw = random.Random(1)
    store(conn, [payload(draw) for _ in range(500)])
    asked = [
        Condition(draw.choice(KEYS), f"key.{name}", value)
        for name, value in map(spread, (question(draw) for _ in range(300)))
    ]
    looser = [(one, wider) for one in asked if (wider := implied(one))]
    for one, wider in looser:
        assert {*passing(conn, one)} <= {*passing(conn, wider)}, one
    assert len(looser) > 100


def spread(asked: dict[str, Any]) -> tuple[str, Any]:
    """A test's operator, and what it takes."""
    ((name, value),) = asked.items()
    ((how, wanted),) = value.items() if name == "match" else (("", value),)
    return (f"match.{how}", wanted) if how else (name, wanted)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 6))
def test_finds_what_the_engine_finds_at_length(conn: psycopg.Connection[Any], tmp_path: Path, seed: int) -> None:
    compare(conn, tmp_path, seed, payloads=2_000, filters=2_000)
