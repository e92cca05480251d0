"""Geo filters without PostGIS: `geo_radius`, `geo_bounding_box` and `geo_polygon`, as Qdrant defines them.

A point is `{"lat": …, "lon": …}` in degrees; in language A also `[lon, lat]`, as GeoJSON has it. Points on the edge
of an area are outside. Distances are great circles; boxes and polygons are flat, with degrees as coordinates.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH

from app.retrieval.plan import Binds

EARTH_RADIUS_M = 6_371_008.8  # the mean radius (IUGG), which Qdrant uses
_MAX_POINTS = 1_000
# Nearer to 0 than this is 0: 0.1 µm on the ground, and squares of smaller numbers underflow, which PostgreSQL refuses.
_ZERO = 1e-12
_IN_RANGE = "{lat} >= -90 && {lat} <= 90 && {lon} >= -180 && {lon} <= 180"
_OBJECT = '@.type() == "object" && @.lat.type() == "number" && @.lon.type() == "number" && ' + _IN_RANGE.format(
    lat="@.lat", lon="@.lon"
)
_ARRAY = (
    '@.type() == "array" && @.size() == 2 && @[0].type() == "number" && @[1].type() == "number" && '
    + _IN_RANGE.format(lat="@[1]", lon="@[0]")
)
_NO_VARIABLE = sa.literal_column("'{}'::jsonb", JSONB)

Numbers = list[float]
Bind = Callable[[str, Any, Callable[[Any], Any]], sa.ColumnElement[Any]]


def check_area(shape: str, value: Any) -> None:
    """Raise `ValueError` where the value does not describe an area of this shape."""
    _READERS[shape](value)


def within(
    shape: str, value: sa.ColumnElement[Any], bind: Bind, binds: Binds, hint: str, *, arrays: bool
) -> sa.ColumnElement[bool]:
    """Whether a JSON value is a point in the area, or an array that holds one; `arrays`: `[lon, lat]` is a point.

    `bind(name, type, convert)` makes a parameter of what `convert` makes of the filter's value.
    """
    if arrays:  # the path opens arrays, and must not open one that is a point
        pair = binds.add(f"{hint}_path", JSONPATH(), f"strict $ ? ({_ARRAY})")
        is_point = sa.func.jsonb_path_exists(value, pair, _NO_VARIABLE, sa.true(), type_=sa.Boolean())
        wrapped = sa.func.jsonb_build_array(value, type_=JSONB)
        value = sa.case((is_point, wrapped), else_=value)
    test = f"({_OBJECT}) || ({_ARRAY})" if arrays else _OBJECT
    path = binds.add(f"{hint}_path", JSONPATH(), f"$ ? ({test})")
    point = sa.func.jsonb_path_query(value, path, _NO_VARIABLE, sa.true(), type_=JSONB).column_valued("p")
    coordinates = (_coordinate(point, "'lat'", "1").label("lat"), _coordinate(point, "'lon'", "0").label("lon"))
    # OFFSET: so that they are read once, and not for each edge of a polygon.
    points = sa.select(*coordinates).offset(sa.literal_column("0")).subquery("points")
    inside = _SHAPES[shape](points.c.lat, points.c.lon, bind)
    return sa.select(sa.literal_column("1")).select_from(points).where(inside).exists()


def _coordinate(point: sa.ColumnElement[Any], key: str, index: str) -> sa.ColumnElement[float]:
    by_key, by_index = (point.op("->>", return_type=sa.Text())(sa.literal_column(place)) for place in (key, index))
    number = sa.cast(sa.func.coalesce(by_key, by_index), sa.Numeric)
    tiny = sa.func.abs(number) < sa.literal_column(repr(_ZERO), sa.Numeric)
    return sa.case((tiny, _number(0)), else_=sa.cast(number, sa.Double))


def _in_circle(lat: sa.ColumnElement[float], lon: sa.ColumnElement[float], bind: Bind) -> sa.ColumnElement[bool]:
    """By the haversine formula: a = sin²(Δφ/2) + cos φ₁ cos φ₂ sin²(Δλ/2), d = 2 r asin √a."""
    at_lat, at_lon, radius = (
        bind(name, sa.Double(), _item(circle_of, i)) for i, name in enumerate(("lat", "lon", "radius"))
    )
    two, one = _number(2), _number(1)
    half_lat, half_lon = (
        sa.func.sin(sa.func.radians(a - b) / two, type_=sa.Double) for a, b in ((lat, at_lat), (lon, at_lon))
    )
    cosines = sa.func.cos(sa.func.radians(at_lat), type_=sa.Double) * sa.func.cos(sa.func.radians(lat), type_=sa.Double)
    a = half_lat * half_lat + cosines * half_lon * half_lon
    angle = two * sa.func.asin(sa.func.least(one, sa.func.sqrt(a)), type_=sa.Double)
    return angle * _number(EARTH_RADIUS_M) < radius


def _in_box(lat: sa.ColumnElement[float], lon: sa.ColumnElement[float], bind: Bind) -> sa.ColumnElement[bool]:
    """One whose left edge lies east of its right one crosses the 180th meridian."""
    top, left, bottom, right = (
        bind(name, sa.Double(), _item(sides_of, i)) for i, name in enumerate(("top", "left", "bottom", "right"))
    )
    crossing = sa.and_(left > right, sa.or_(lon > left, lon < right))
    return sa.and_(lat < top, lat > bottom, sa.or_(crossing, sa.and_(lon > left, lon < right)))


def _in_polygon(lat: sa.ColumnElement[float], lon: sa.ColumnElement[float], bind: Bind) -> sa.ColumnElement[bool]:
    """By winding numbers: not 0 around the exterior, 0 around the interiors, and on no edge."""
    names = ("ring", "lon", "lat", "to_lon", "to_lat")
    arrays = (bind(name, sa.ARRAY(sa.Double), _item(edges_of, i)) for i, name in enumerate(names))
    edge = sa.func.unnest(*arrays).table_valued(*(sa.column(name, sa.Double) for name in names)).render_derived()
    x, y, to_x, to_y = edge.c.lon, edge.c.lat, edge.c.to_lon, edge.c.to_lat
    side = (to_x - x) * (lat - y) - (lon - x) * (to_y - y)  # > 0: the point is left of the edge
    upward, downward = (
        sa.and_(y <= lat, to_y > lat, side > _number(0)),
        sa.and_(y > lat, to_y <= lat, side < _number(0)),
    )
    turn = sa.case((upward, _number(1)), (downward, _number(-1)), else_=_number(0))
    near = sa.and_(
        lon.between(sa.func.least(x, to_x), sa.func.greatest(x, to_x)),
        lat.between(sa.func.least(y, to_y), sa.func.greatest(y, to_y)),
    )
    around = sa.func.sum(sa.case((edge.c.ring == _number(0), turn), else_=_number(0)))
    around_holes = sa.func.sum(sa.case((edge.c.ring > _number(0), turn), else_=_number(0)))
    on_edge = sa.func.bool_or(sa.and_(side == _number(0), near))
    inside = sa.and_(around != _number(0), around_holes == _number(0), sa.not_(on_edge))
    return sa.select(inside).select_from(edge).correlate_except(edge).scalar_subquery()


def _number(number: float) -> sa.ColumnElement[float]:
    """A constant of a formula, in the text; as a float, for PostgreSQL reads decimals as exact numerics."""
    return sa.cast(sa.literal_column(repr(number)), sa.Double)


_SHAPES: Mapping[str, Callable[..., sa.ColumnElement[bool]]] = {
    "geo_radius": _in_circle,
    "geo_bounding_box": _in_box,
    "geo_polygon": _in_polygon,
}


# Reading the areas that callers describe


def _item(read: Callable[[Any], Sequence[Any]], index: int) -> Callable[[Any], Any]:
    return lambda value: read(value)[index]


def circle_of(value: Any) -> tuple[float, float, float]:
    center, radius = _members(value, "center", "radius")
    if not _is_number(radius) or radius < 0:
        raise ValueError("`radius` is a number of metres from 0")
    return (*_point(center, "center"), float(radius))


def sides_of(value: Any) -> tuple[float, float, float, float]:
    top_left, bottom_right = _members(value, "top_left", "bottom_right")
    return (*_point(top_left, "top_left"), *_point(bottom_right, "bottom_right"))


def edges_of(value: Any) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers]:
    """The edges of all rings, as columns: the ring's number (0 is the exterior), and the ends' lon and lat."""
    (exterior,) = _members(value, "exterior", optional=("interiors",))
    interiors = value.get("interiors") or []
    if not isinstance(interiors, list):
        raise ValueError("`interiors` is a list of {points}")
    rings = [_ring(ring) for ring in (exterior, *interiors)]
    if sum(map(len, rings)) > _MAX_POINTS:
        raise ValueError(f"a polygon has at most {_MAX_POINTS} points")
    edges = [
        (float(n), lon, lat, to_lon, to_lat)
        for n, ring in enumerate(rings)
        for (lat, lon), (to_lat, to_lon) in pairwise(ring)
    ]
    ring, lon, lat, to_lon, to_lat = map(list, zip(*edges, strict=True))
    return ring, lon, lat, to_lon, to_lat


def _ring(value: Any) -> list[tuple[float, float]]:
    (points,) = _members(value, "points")
    if not isinstance(points, list) or not 4 <= len(points) <= _MAX_POINTS:
        raise ValueError(f"`points` is a list of 4 to {_MAX_POINTS} points")
    found = [_point(point, "points") for point in points]
    if found[0] != found[-1]:
        raise ValueError("the first and the last of `points` are the same, so that they close a ring")
    return found


def _members(value: Any, *names: str, optional: tuple[str, ...] = ()) -> list[Any]:
    if not isinstance(value, dict) or not value.keys() >= set(names) or value.keys() - {*names, *optional}:
        raise ValueError(f"{{{', '.join((*names, *(f'{name}?' for name in optional)))}}} is what it takes")
    return [value[name] for name in names]


def _point(value: Any, name: str) -> tuple[float, float]:
    """Latitude and longitude."""
    lon, lat = value if isinstance(value, list) and len(value) == 2 else reversed(_members(value, "lat", "lon"))
    if not (_is_number(lat) and _is_number(lon) and -90 <= lat <= 90 and -180 <= lon <= 180):
        raise ValueError(f"`{name}` takes latitudes from -90 to 90 and longitudes from -180 to 180")
    return tuple(0.0 if abs(number) < _ZERO else float(number) for number in (lat, lon))  # type: ignore[return-value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


_READERS: Mapping[str, Callable[[Any], object]] = {
    "geo_radius": circle_of,
    "geo_bounding_box": sides_of,
    "geo_polygon": edges_of,
}
