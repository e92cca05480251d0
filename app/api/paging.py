"""Lists: which page is asked for, in the body or in the query, and where the page that is answered stands."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery

from app.api.wire import Input, NotOffered, not_in_query
from app.errors import InvalidRequest, Problem


class PageInput(Input, frozen=True):
    """Which page of a list; `page_size` is another name of `limit`, `next_cursor` and `after` are of `cursor`."""

    limit: int | None = None
    page_size: int | None = None
    cursor: str | None = None
    next_cursor: str | None = None
    after: str | None = None
    include_total: bool | None = None
    offset: NotOffered = 0
    page: NotOffered = 1


async def page_query(
    limit: FromQuery[int | None] = None,
    page_size: FromQuery[int | None] = None,
    cursor: FromQuery[str | None] = None,
    next_cursor: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    include_total: FromQuery[bool | None] = None,
) -> PageInput:
    """The page that the query asks for; every list takes these."""
    return PageInput(
        limit=limit,
        page_size=page_size,
        cursor=cursor,
        next_cursor=next_cursor,
        after=after,
        include_total=include_total,
    )


PageQuery = NamedDependency[PageInput]
# What a list's handler is given.
PAGED: dict[str, Any] = {
    "dependencies": {"paging": Provide(page_query)},
    "guards": [not_in_query(offset="0", page="1", search="", sort="", return_presigned_urls="false")],
}


@dataclass(frozen=True, slots=True)
class Page:
    """At most `size` rows, those after the id `after`; and whether they are to be counted."""

    size: int
    after: str | None
    total: bool


def page_of(body: PageInput | None, query: PageInput, most: int, default: int = 100) -> Page:
    """The page that is asked for; the body wins over the query. What is out of range is refused, never clamped."""
    at, size = _first(body, query, "limit", "page_size")
    if size is not None and not 1 <= size <= most:
        raise InvalidRequest([Problem(at, "out_of_range", f"{at[1]} is from 1 to {most}, not {size}.")])
    of_cursor, cursor = _first(body, query, "cursor", "next_cursor", "after")
    _, total = _first(body, query, "include_total")
    return Page(size or default, _id_of(cursor, of_cursor) if cursor else None, bool(total))


def _first(body: PageInput | None, query: PageInput, *names: str) -> tuple[tuple[str, str], Any]:
    """The first of these fields that is given, and its place."""
    for source, given in (("body", body), ("query", query)):
        for name in names:
            if (value := getattr(given, name, None)) is not None:
                return (source, name), value
    return ("query", names[0]), None


class Pagination(msgspec.Struct, kw_only=True):
    """Where a page stands in its list; totals only when they were asked for."""

    total: int | None = None
    page: int | None = None
    page_size: int | None = None
    total_pages: int | None = None
    next_page: str | None = None
    previous_page: str | None = None
    next_cursor: str | None = None


def pagination(page: Page, ids: list[str], total: int | None) -> Pagination:
    """`ids` are those found, one more than fit when there is a next page; `total`, when it is known."""
    shown = total if page.total else None
    return Pagination(
        page_size=page.size,
        total=shown,
        total_pages=None if shown is None else -(-shown // page.size),
        next_cursor=_cursor(ids[page.size - 1]) if len(ids) > page.size else None,
    )


def _cursor(last: str) -> str:
    """An opaque cursor: the page after this id."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def _id_of(cursor: str, at: tuple[str, str]) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        problem = Problem(at, "bad_cursor", "This is no cursor of ours; start again without one.")
        raise InvalidRequest([problem]) from None
