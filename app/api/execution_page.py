"""`pagination` of an execution, in its four methods, and how the answered page is told."""

from typing import Any, Literal

import msgspec

from app.api.wire import Input
from app.domain.retrieving.windows import Window
from app.errors import Problems
from app.settings import Settings

# What each method takes beside `method`.
FIELDS: dict[str, tuple[str, ...]] = {
    "cursor": ("limit", "cursor"),
    "offset": ("page_size", "page_number"),
    "keyset": ("limit", "after"),
    "scroll": ("limit", "scroll_id", "scroll_ttl"),
}
SIZES = {"cursor": 10, "offset": 10, "keyset": 10, "scroll": 100}
SCROLL_TTL = (60, 3_600)
FIRST_PAGE, LAST_PAGE = 1, 1_000_000
HERE = ("body", "pagination")


class PaginationInput(Input, frozen=True, kw_only=True):
    """Which page. `cursor` {limit, cursor}, `offset` {page_size, page_number}, `keyset` {limit, after} or
    `scroll` {limit, scroll_id, scroll_ttl}: the first page without, the next ones with what the answer gave.

    Nothing is kept between pages, so a scroll does not end with its `scroll_ttl`.
    """

    method: Literal["cursor", "offset", "keyset", "scroll"] = "cursor"
    limit: int | None = None
    cursor: str | None = None
    page_size: int | None = None
    page_number: int | None = None
    after: dict[str, Any] | None = None
    scroll_id: str | None = None
    scroll_ttl: int | None = None


class Paged(Input, frozen=True, kw_only=True):
    """The part of a body that says which page."""

    pagination: PaginationInput | None = None
    limit: int | None = None
    page_size: int | None = None

    def window(self, settings: Settings, problems: Problems, warnings: list[str]) -> Window:
        """The page that is asked for; without any, the first of the size that the pipeline names."""
        if self.limit is not None and self.page_size is not None and self.limit != self.page_size:
            message = f"limit ({self.limit}) and page_size ({self.page_size}) mean the same; give one."
            problems.add(("body", "page_size"), "bad_value", message)
        named = "limit" if self.limit is not None else "page_size"
        size = self.limit if self.limit is not None else self.page_size
        _check_size(size, ("body", named), problems)
        if self.pagination is None:
            return Window(size=size, most=settings.max_result_page)
        found = _window(self.pagination, settings, problems)
        if size is not None and size != found.size:
            warnings.append(f"`pagination` asks for {found.size} documents, `{named}` for {size}: pagination wins.")
        return found


def _check_size(size: int | None, at: tuple[str, ...], problems: Problems) -> None:
    if size is not None and size < 1:
        problems.add(at, "out_of_range", f"{at[-1]} is 1 or more, not {size}.")


def _window(given: PaginationInput, settings: Settings, problems: Problems) -> Window:
    method = given.method
    own = FIELDS[method]
    for name in given.__struct_fields__:
        if name != "method" and name not in own and getattr(given, name) is not None:
            message = f"{method} pagination has no {name}; it takes {' and '.join(own)}."
            problems.add((*HERE, name), "extra_forbidden", message)
    size = given.page_size if method == "offset" else given.limit
    _check_size(size, (*HERE, own[0]), problems)
    page = FIRST_PAGE if given.page_number is None else given.page_number
    if not FIRST_PAGE <= page <= LAST_PAGE:
        message = f"page_number is from {FIRST_PAGE} to {LAST_PAGE}, not {page}."
        problems.add((*HERE, "page_number"), "out_of_range", message)
    if given.scroll_ttl is not None and not SCROLL_TTL[0] <= given.scroll_ttl <= SCROLL_TTL[1]:
        message = f"scroll_ttl is from {SCROLL_TTL[0]} to {SCROLL_TTL[1]} seconds, not {given.scroll_ttl}."
        problems.add((*HERE, "scroll_ttl"), "out_of_range", message)
    return Window(
        method,
        size=size if size is not None else SIZES[method],
        most=settings.max_page_size if method == "scroll" else settings.max_result_page,
        page=page,
        token=(given.scroll_id if method == "scroll" else given.cursor) or None,
        marker=given.after or None,
    )


def shown(window: Window, place: Any, returned: int) -> dict[str, Any]:
    """The answer's `pagination`: the same keys for every method, and those of its own."""
    told: dict[str, Any] = {
        "method": window.method,
        "limit": place.size,
        "returned": returned,
        "total": place.total,
        "cursor": place.token if window.method == "cursor" else None,
        "has_next": place.has_next,
    }
    if window.method == "offset":
        told |= {"page_size": place.size, "page_number": window.page}
    elif window.method == "keyset":
        told["after"] = place.marker
    elif window.method == "scroll":
        told["scroll_id"] = place.token
    return told


def limits_of(limits: Any) -> list[dict[str, Any]]:
    """The answer's `limits`: each number that was cut, what was asked, what was used."""
    return [msgspec.to_builtins(limit) for limit in limits]
