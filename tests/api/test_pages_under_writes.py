"""Pages of one ranked result while documents come, go and move between them: what docs/executions.md promises."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.http import Api, document, feature_search, search, stage

SIZE = 3
V = {"v": [1, 0]}
START = [f"d{n:02}" for n in range(12)]
Follow = Callable[[Any], dict[str, Any]]
METHODS: dict[str, Follow] = {
    "cursor": lambda told: {"method": "cursor", "limit": SIZE, "cursor": told["cursor"]},
    "keyset": lambda told: {"method": "keyset", "limit": SIZE, "after": told["after"]},
    "scroll": lambda told: {"method": "scroll", "limit": SIZE, "scroll_id": told["scroll_id"]},
}


def at(place: float, name: str) -> dict[str, Any]:
    """A document that stands at this place of the order."""
    return document(name, {"v": [1, place]}, place=place)


@pytest.fixture(params=["statement", "sorted"])
def plane(api: Api, request: pytest.FixtureRequest) -> Api:
    """Twelve documents in an order: of a search, and of a stage after it."""
    api.standalone(("v", 2))
    api.upsert([at(n, name) for n, name in enumerate(START)])
    near = feature_search(search("v", "{{INPUT.v}}"), final_top_k=50)
    stages = [near] if request.param == "statement" else [near, stage("sort_attribute", field="place", direction="asc")]
    api.retriever("near", *stages)
    return api


def walk(api: Api, method: str, *writes: Callable[[], Any]) -> list[str]:
    """Every page's documents; before the second page the first write happens, and so on."""
    found: list[str] = []
    page: dict[str, Any] = {"method": method, "limit": SIZE}
    pending = list(writes)
    while True:
        answer = api.execute("near", inputs=V, pagination=page)
        found += [d["document_id"] for d in answer["documents"]]
        if not answer["pagination"]["has_next"]:
            return found
        page = METHODS[method](answer["pagination"])
        if pending:
            pending.pop(0)()


@pytest.mark.parametrize("method", METHODS)
def test_what_comes_and_goes_moves_no_other_document(plane: Api, method: str) -> None:
    """Inserted before the place: not shown; after it: shown. Deleted: the others neither skipped nor repeated."""

    def first() -> None:
        plane.upsert([at(0.5, "before"), at(6.5, "after")])
        plane("DELETE", "/documents/d02")  # the last that was shown, which the cursor names
        plane("DELETE", "/documents/d00")

    def second() -> None:
        plane("DELETE", "/documents/d05")
        plane("DELETE", "/documents/d06")  # not shown yet
        plane.upsert([at(1.5, "before_too")])

    assert walk(plane, method, first, second) == [
        *("d00", "d01", "d02", "d03", "d04", "d05", "after"),
        *("d07", "d08", "d09", "d10", "d11"),
    ]


@pytest.mark.parametrize("method", METHODS)
def test_a_document_that_moves_is_shown_where_it_stands(plane: Api, method: str) -> None:
    """Moved back it is shown again, moved ahead it is missed; no other document is either."""

    def move() -> None:
        plane.upsert([at(10.5, "d01"), at(0.5, "d08")])

    found = walk(plane, method, move)
    assert found == ["d00", "d01", "d02", *(n for n in START[3:11] if n != "d08"), "d01", "d11"]


@pytest.mark.parametrize("method", METHODS)
def test_the_document_of_the_cursor_leads_on_from_where_it_stands(plane: Api, method: str) -> None:
    assert walk(plane, method, lambda: plane.upsert([at(7.5, "d02")])) == [
        *("d00", "d01", "d02"),
        *("d08", "d09", "d10", "d11"),
    ]


def test_pages_by_number_do_shift(plane: Api) -> None:
    """`offset` counts from the beginning each time, as everywhere."""
    page = {"method": "offset", "page_size": SIZE, "page_number": 1}
    assert [d["document_id"] for d in plane.execute("near", inputs=V, pagination=page)["documents"]] == START[:3]
    plane.upsert([at(0.5, "new")])
    page["page_number"] = 2
    again = plane.execute("near", inputs=V, pagination=page)["documents"]
    assert [d["document_id"] for d in again] == ["d02", "d03", "d04"]
