"""Lists of buckets, objects and uploads: from what a request asks for to the page that is answered."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api.bucket_models import ListInput
from app.api.paging import PageInput, Pagination, page_of, pagination
from app.domain.catalog import listing
from app.domain.catalog.listing import Listed, Wanted
from app.domain.runtime import Runtime
from app.errors import Problems
from app.retrieval.filter_parser import parse_filter
from app.retrieval.filters import Filter, FilterLimits
from app.retrieval.templates import is_templated, lift

T = TypeVar("T")


async def page(
    conn: AsyncConnection,
    runtime: Runtime,
    listed: Listed,
    binds: Mapping[str, Any],
    asked: ListInput | None,
    paging: PageInput,
    made: Callable[[RowMapping], T],
    *,
    default: int = 100,
    count: bool = False,
) -> tuple[list[T], Pagination, int | None]:
    """The rows of a page, where it stands, and how many there are in all, if that is asked for or always to be said."""
    asked = asked or ListInput()
    at = page_of(asked, paging, runtime.settings.max_page_size, default)
    wanted = _wanted(runtime, listed, asked, binds, at.after)
    rows, total = await listing.list_page(conn, listed, wanted, at.size + 1, total=count or at.total)
    places = _places(listed, rows, wanted.order)
    return [made(row) for row in rows[: at.size]], pagination(at, places, total), total


def _places(listed: Listed, rows: Sequence[RowMapping], order: str) -> list[str]:
    return [listing.place_of(listed, row, order) for row in rows]


def _wanted(runtime: Runtime, listed: Listed, asked: ListInput, binds: Mapping[str, Any], after: str | None) -> Wanted:
    problems = Problems()
    filters = plain_filters(asked.filters, problems, runtime.limits.filters)
    order, descending = _order(listed, asked, problems)
    if "\0" in (asked.search or ""):
        problems.add(("body", "search"), "nul_character", "No text holds U+0000.")
    problems.refuse()
    place = None if after is None else listing.after(listed, after, order)
    return Wanted(filters, asked.search or "", bool(asked.case_sensitive), order, descending, place, binds)


def plain_filters(raw: Any, problems: Problems, limits: FilterLimits) -> Filter | None:
    """The filters of a list, in either language; there are no inputs that a template could stand for."""
    here, before = ("body", "filters"), len(problems.found)
    found = parse_filter(raw, here, problems, limits, templated=False)
    if len(problems.found) == before and is_templated(lift(raw, here, problems)):
        problems.add(here, "bad_filter", "The filters of a list take no templates.")
    return found


def _order(listed: Listed, asked: ListInput, problems: Problems) -> tuple[str, bool]:
    name, given = ("sorts", asked.sorts) if asked.sorts else ("sort", [asked.sort] if asked.sort else [])
    if not given:
        return "created_at", True
    field, direction = given[0].get("field"), given[0].get("direction") or "asc"
    if len(given) > 1 or set(given[0]) - {"field", "direction"} or field not in listed.sortable:
        message = f"Sort by one field, as {{field, direction}}; the fields are {', '.join(listed.sortable)}."
        problems.add(("body", name), "bad_sort", message)
    elif direction not in ("asc", "desc"):
        problems.add(("body", name), "bad_sort", "A direction is asc or desc.")
    return str(field), direction == "desc"
