"""Language A finds what a plain evaluator of its documentation finds, for random payloads and filters."""

import json
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psycopg
import pytest

from tests.filtering import NUMBERS, TEXTS, TIMES, parsed, passing, payload, point, scalar, store

FIELDS = ["a", "a", "b", "c", "a.b", "a.b.c", "b.a", "a.a", "a.0", "place", "absent"]


# The evaluator: it reads the JSON of filters, as callers write it


def holds(filter_: Any, document: Any) -> bool:
    if isinstance(filter_, list):
        return all(holds(item, document) for item in filter_)
    if "field" in filter_:
        return asks(document, filter_["field"], filter_.get("operator", "eq"), filter_.get("value"), folds(filter_))
    groups: dict[str, Callable[[Iterable[bool]], bool]] = {"AND": all, "OR": any, "NOT": lambda found: not any(found)}
    if filter_.keys() & groups.keys():
        return all(groups[name](holds(item, document) for item in items) for name, items in filter_.items())
    return all(asks(document, field, "eq", wanted, False) for field, wanted in filter_.items())


def folds(filter_: Any) -> bool:
    return filter_.get("case_insensitive", False) is True


def asks(document: Any, field: str, operator: str, wanted: Any, fold: bool) -> bool:
    """A field stands for the values at its path, through arrays; and each for its elements, two deep."""
    found = [document]
    for name in field.split("."):
        found = [one[name] for one in opened(found) if isinstance(one, dict) and name in one]
    elements = opened(opened(found))
    match operator:
        case "ne":
            return not asks(document, field, "eq", wanted, fold)
        case "nin":
            return not asks(document, field, "in", wanted, fold)
        case "exists":
            return bool(found) is wanted
        case "is_null":
            return all(one is None for one in elements) is wanted
        case "eq" if wanted is None:
            return all(one is None for one in elements)
        case "eq" if isinstance(wanted, list):
            return any(same(one, wanted) for one in found)
        case "eq" if isinstance(wanted, dict):
            return any(same(one, wanted) for one in opened(found))
        case "geo_radius" | "geo_bounding_box" | "geo_polygon":
            return any(AREAS[operator](lat, lon, wanted) for one in found for lat, lon in places(one))
    return any(passes(one, operator, wanted, fold) for one in elements)


def opened(values: list[Any]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def kind(value: Any) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def same(one: Any, other: Any) -> bool:
    """Equality of JSON: 1 is 1.0, and true is not 1."""
    if kind(one) != kind(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return bool(one.keys() == other.keys() and all(same(one[key], other[key]) for key in one))
    return bool(one == other)


def passes(one: Any, operator: str, wanted: Any, fold: bool) -> bool:
    text = isinstance(one, str)
    if fold and operator not in ("gt", "gte", "lt", "lte"):  # order is that of code points, always
        one, wanted = lowered(one), lowered(wanted)
    match operator:
        case "eq":
            return same(one, wanted)
        case "in":
            return any(same(one, item) for item in wanted)
        case "contains":
            return same(one, wanted) or (text and isinstance(wanted, str) and wanted in one)
        case "gt" | "gte" | "lt" | "lte":
            return kind(one) == kind(wanted) and compared(one, operator, wanted)
        case "text":
            return text and wanted.lower() in one.lower()
        case "starts_with":
            return text and one.startswith(wanted)
        case "ends_with":
            return text and one.endswith(wanted)
        case "regex":
            return text and re.search(wanted, one) is not None
    raise AssertionError(operator)


def compared(one: Any, operator: str, wanted: Any) -> bool:
    return bool({"gt": one > wanted, "gte": one >= wanted, "lt": one < wanted, "lte": one <= wanted}[operator])


def lowered(value: Any) -> Any:
    if isinstance(value, list):
        return [lowered(item) for item in value]
    return value.lower() if isinstance(value, str) else value


def places(value: Any) -> list[tuple[float, float]]:
    """The points that a value is, as (lat, lon): {lat, lon}, [lon, lat], or a list of such."""
    if isinstance(value, dict) and kind(value.get("lat")) == kind(value.get("lon")) == "number":
        return [(value["lat"], value["lon"])] if abs(value["lat"]) <= 90 and abs(value["lon"]) <= 180 else []
    if is_pair(value):
        return [(value[1], value[0])] if abs(value[1]) <= 90 and abs(value[0]) <= 180 else []
    if isinstance(value, list):
        return [place for item in value if isinstance(item, dict) or is_pair(item) for place in places(item)]
    return []


def is_pair(value: Any) -> bool:
    return isinstance(value, list) and list(map(kind, value)) == ["number", "number"]


def in_circle(lat: float, lon: float, area: Any) -> bool:
    """By the spherical law of cosines, where haversines are what is tested; the two agree to centimetres."""
    a, b = math.radians(lat), math.radians(area["center"]["lat"])
    cosine = math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(math.radians(lon - area["center"]["lon"]))
    return bool(6_371_008.8 * math.acos(max(-1.0, min(1.0, cosine))) < area["radius"])


def in_box(lat: float, lon: float, area: Any) -> bool:
    (top, left), (bottom, right) = ((area[c]["lat"], area[c]["lon"]) for c in ("top_left", "bottom_right"))
    across: bool = lon > left or lon < right if left > right else left < lon < right
    return across and bool(bottom < lat < top)


def in_polygon(lat: float, lon: float, area: Any) -> bool:
    """By angles: around a point inside they sum up to a whole turn."""
    rings = [area["exterior"], *area.get("interiors", [])]
    turns = []
    for ring in rings:
        total = 0.0
        for one, other in zip(ring["points"], ring["points"][1:], strict=False):
            a, b = complex(one["lon"] - lon, one["lat"] - lat), complex(other["lon"] - lon, other["lat"] - lat)
            if a == 0 or b == 0:
                return False
            angle = math.atan2(a.real * b.imag - a.imag * b.real, a.real * b.real + a.imag * b.imag)
            if abs(abs(angle) - math.pi) < 1e-9:
                return False
            total += angle
        turns.append(round(total / math.tau))
    return turns[0] != 0 and not any(turns[1:])


AREAS = {"geo_radius": in_circle, "geo_bounding_box": in_box, "geo_polygon": in_polygon}


# Random filters of language A


def condition(draw: random.Random) -> dict[str, Any]:
    field = draw.choice(FIELDS)
    if draw.random() < 0.1:
        return {field: draw.choice([scalar(draw), [1, 2], {"a": 1}, ["red"]])}
    made: dict[str, Any] = {"field": field}
    if draw.random() < 0.2:
        made["case_insensitive"] = True
    text = draw.choice([*TEXTS, "RED", "e", "."])
    match draw.randrange(9):
        case 0 | 1:
            asked: Any = ("eq", "ne")[draw.randrange(2)], draw.choice([scalar(draw), None, [], {}, [1], {"lat": 1}])
        case 2:
            some = (scalar(draw) for _ in range(draw.choice([4, 60])))  # long lists are looked up
            asked = draw.choice(["in", "nin"]), [one for one in some if one is not None]
        case 3 | 4:
            asked = draw.choice(["gt", "gte", "lt", "lte"]), draw.choice([*NUMBERS, *TEXTS, *TIMES])
        case 5:
            asked = draw.choice(["exists", "is_null"]), draw.choice([True, False])
        case 6:
            asked = draw.choice(["contains", "text", "starts_with", "ends_with"]), text
        case 7:
            asked = draw.choice([("contains", 1), ("contains", True), ("regex", "^re"), ("regex", "car|x$")])
        case _:
            made["field"] = draw.choice(["place", "place", field])
            asked = area(draw)
    return made | dict(zip(("operator", "value"), asked, strict=True))


def area(draw: random.Random) -> tuple[str, Any]:
    match draw.randrange(3):
        case 0:
            return "geo_radius", {"center": point(draw), "radius": draw.choice([1_000, 400_000, 5e6, 1.9e7])}
        case 1:
            return "geo_bounding_box", {"top_left": point(draw), "bottom_right": point(draw)}
    corners = [point(draw) for _ in range(3)]
    return "geo_polygon", {"exterior": {"points": [*corners, corners[0]]}}


def group(draw: random.Random, depth: int) -> Any:
    items = [condition(draw) if depth == 0 or draw.random() < 0.7 else group(draw, depth - 1) for _ in range(2)]
    return draw.choice([items, *({name: items[: draw.choice([1, 2])]} for name in ("AND", "OR", "NOT"))])


@pytest.fixture
def conn(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(conninfo) as conn:
        yield conn
        conn.rollback()


def compare(conn: psycopg.Connection[Any], seed: int, payloads: int, filters: int) -> None:
    draw = random.Random(seed)
    stored = [payload(draw) for _ in range(payloads)]
    store(conn, stored)
    told = 0
    for _ in range(filters):
        raw = group(draw, depth=2)
        ours, expected = passing(conn, parsed(raw)), [n for n, document in enumerate(stored) if holds(raw, document)]
        differing = [stored[n] for n in sorted({*ours} ^ {*expected})[:3]]
        assert ours == expected, f"{json.dumps(raw)}\non {json.dumps(differing)}"
        told += 0 < len(expected) < payloads
    assert told > filters / 2  # or the comparison would prove little


def test_finds_what_the_evaluator_finds(conn: psycopg.Connection[Any]) -> None:
    compare(conn, seed=1, payloads=600, filters=300)


@pytest.mark.campaign
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 6))
def test_finds_what_the_evaluator_finds_at_length(conn: psycopg.Connection[Any], seed: int) -> None:
    compare(conn, seed, payloads=2_000, filters=2_000)
