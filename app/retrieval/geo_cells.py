"""Cells of a grid over the earth, by which an index of a geo field finds what may lie in an area.

Level l divides the plate carrée map into 2^l × 2^l cells; an index holds the cells of each point at every level of
`LEVELS`, and an area is covered by few cells of one of them. What they find is then asked the condition itself.
"""

import math
from collections.abc import Iterator
from typing import Any

from app.retrieval.geo import EARTH_RADIUS_M, circle_of, edges_of, sides_of

# As pgretrieve.payload_cells has them. A cell of the last is 2.4 km wide at the equator.
LEVELS = (0, 2, 4, 6, 8, 10, 12, 14)
# Cells that an area is covered by, at most: each is a look-up in the index.
MOST = 64
# Degrees (11 cm): more than floating point loses, and than what `geo` takes for 0.
MARGIN = 1e-6

Box = tuple[float, float, float, float]
"""South, west, north, east in degrees; west is never east of east."""


def cells_of(shape: str, value: Any) -> list[int]:
    """Cells that cover an area as a filter describes it; raises `ValueError` where it does not."""
    boxes = [_clamped(box) for box in _boxes(shape, value)]
    for level in reversed(LEVELS):
        ranges = [_range(box, level) for box in boxes]
        if sum((right - left + 1) * (top - bottom + 1) for left, bottom, right, top in ranges) <= MOST:
            return [_key(level, x, y) for one in ranges for x, y in _within(one)]
    raise AssertionError("level 0 is one cell")


def _boxes(shape: str, value: Any) -> Iterator[Box]:
    match shape:
        case "geo_radius":
            yield from _around(*circle_of(value))
        case "geo_bounding_box":
            top, left, bottom, right = sides_of(value)
            yield from _split(bottom, left, top, right if left <= right else right + 360)
        case _:
            _, lons, lats, *_ = edges_of(value)
            yield min(lats), min(lons), max(lats), max(lons)


def _around(lat: float, lon: float, radius: float) -> Iterator[Box]:
    """The box around a circle; one that holds a pole goes all the way round."""
    angle = math.degrees(radius / EARTH_RADIUS_M)
    south, north = lat - angle, lat + angle
    if south <= -90 or north >= 90:
        yield south, -180, north, 180
        return
    wide = math.degrees(math.asin(min(1.0, math.sin(math.radians(angle)) / math.cos(math.radians(lat)))))
    yield from _split(south, lon - wide, north, lon + wide)


def _split(south: float, west: float, north: float, east: float) -> Iterator[Box]:
    """At the 180th meridian."""
    if east - west >= 360:
        yield south, -180, north, 180
    elif west < -180:
        yield south, west + 360, north, 180
        yield south, -180, north, east
    elif east > 180:
        yield south, west, north, 180
        yield south, -180, north, east - 360
    else:
        yield south, west, north, east


def _clamped(box: Box) -> Box:
    south, west, north, east = box
    return max(south - MARGIN, -90), max(west - MARGIN, -180), min(north + MARGIN, 90), min(east + MARGIN, 180)


def _range(box: Box, level: int) -> tuple[int, int, int, int]:
    south, west, north, east = box
    most = (1 << level) - 1

    def place(degrees: float, whole: float) -> int:
        return min(max(math.floor((degrees + whole / 2) / whole * (most + 1)), 0), most)

    return place(west, 360), place(south, 180), place(east, 360), place(north, 180)


def _within(cells: tuple[int, int, int, int]) -> Iterator[tuple[int, int]]:
    left, bottom, right, top = cells
    for x in range(left, right + 1):
        for y in range(bottom, top + 1):
            yield x, y


def _key(level: int, x: int, y: int) -> int:
    return level << 48 | x << 24 | y
