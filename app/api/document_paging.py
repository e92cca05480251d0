"""Which page of a list of documents is asked for: in the body or in the query, by cursor, offset or page."""

import base64
import binascii
from typing import Any

import msgspec
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery

from app.api.document_models import GroupInput, ListInput, SortInput, check_field
from app.api.paging import Pagination
from app.api.wire import not_in_query
from app.domain.documents.document_lists import After, Listed, Sort
from app.errors import Problems
from app.retrieval.operators import check_value

DEFAULT_SIZE = 10
MOST_OFFSET = 2**31 - 1
Place = tuple[str | int, ...]


async def list_query(
    limit: FromQuery[int | None] = None,
    page_size: FromQuery[int | None] = None,
    cursor: FromQuery[str | None] = None,
    next_cursor: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    offset: FromQuery[int | None] = None,
    page: FromQuery[int | None] = None,
    include_total: FromQuery[bool | None] = None,
    return_vectors: FromQuery[bool] = False,
    filters: FromQuery[str | None] = None,
    search: FromQuery[str | None] = None,
    sort: FromQuery[str | None] = None,
) -> ListInput:
    """The page that the query asks for. `filters` is JSON; `sort` is `field:direction`, or JSON."""
    problems = Problems()
    wanted = ListInput(
        limit=limit,
        page_size=page_size,
        cursor=cursor or next_cursor or after,
        offset=offset,
        page=page,
        include_total=include_total,
        return_vectors=return_vectors,
        filters=_json(filters, "filters", problems) if filters else None,
        search=search,
        sort=_sort(sort, problems) if sort else None,
    )
    problems.refuse()
    return wanted


def _json(text: str, name: str, problems: Problems) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        problems.add(("query", name), "malformed_json", f"`{name}` is not JSON: {error}.")


def _sort(text: str, problems: Problems) -> SortInput | None:
    if text.startswith("{"):
        try:
            return msgspec.convert(_json(text, "sort", problems) or {"field": "-"}, SortInput)
        except msgspec.ValidationError as error:
            problems.add(("query", "sort"), "bad_type", f"{error}.")
            return None
    name, _, direction = text.partition(":")
    if direction not in ("", "asc", "desc"):
        problems.add(("query", "sort"), "bad_value", "`sort` is `field`, `field:asc`, `field:desc`, or JSON.")
    return SortInput(field=name, direction="desc" if direction == "desc" else "asc")


ListQuery = NamedDependency[ListInput]
LISTED: dict[str, Any] = {
    "dependencies": {"paging": Provide(list_query)},
    "guards": [not_in_query(return_presigned_urls="false", expand="", partition="")],
}


class Window:
    """The page: its size, where it begins, and what its cursors say. The body wins over the query."""

    def __init__(
        self, asked: ListInput, query: ListInput, most: int, problems: Problems, at: Place = ("body",)
    ) -> None:
        def given(*names: str) -> tuple[Place, Any]:
            for place, source in ((at, asked), (("query",), query)):
                for name in names:
                    if (value := getattr(source, name)) is not None:
                        return (*place, name), value
            return (*at, names[0]), None

        of_size, size = given("limit", "page_size")
        self.size = _in_range(of_size, size, most, problems) or DEFAULT_SIZE
        of_sort, sort = given("sort")
        if sort is not None:
            check_field(sort.field, (*of_sort, "field"), problems)
        self.sort = None if sort is None else Sort(sort.field, sort.direction == "desc")
        self.group_by = asked.group_by.field if isinstance(asked.group_by, GroupInput) else asked.group_by
        if self.group_by is not None:
            check_field(self.group_by, (*at, "group_by"), problems)
        self.total = bool(given("include_total")[1])
        of_search, self.search = given("search")
        self._check_text(self.search, of_search, problems)
        self.of_filters, self.filters = given("filters")
        of_cursor, cursor = given("cursor", "next_cursor", "after")
        self.after = self._read(cursor, of_cursor, problems) if cursor else None
        of_offset, offset = given("offset")
        of_page, number = given("page")
        if number is not None:
            offset = ((_in_range(of_page, number, MOST_OFFSET // self.size, problems) or 1) - 1) * self.size
        elif offset is not None:
            _in_range(of_offset, offset + 1, MOST_OFFSET, problems)
        self.offset = 0 if self.after else offset or 0

    def _check_text(self, text: str | None, at: Place, problems: Problems) -> None:
        try:
            check_value("text", text or "")
        except ValueError as error:
            problems.add(at, "bad_value", f"{error}.")
        if text and len(text) > 1_000:
            problems.add(at, "out_of_range", "A search has at most 1000 characters.")

    @property
    def _order(self) -> list[Any]:
        """What a cursor belongs to: the group's field, or that of the sort."""
        if self.group_by is not None:
            return ["group", self.group_by]
        return ["sort", self.sort.field, self.sort.descending] if self.sort else []

    def _read(self, cursor: str, at: Place, problems: Problems) -> After | None:
        try:
            text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            order, document_id, value = msgspec.json.decode(text, type=tuple[list[Any], str, str | None])
            if value is not None:
                check_value("eq", msgspec.json.decode(value))
            check_value("eq", document_id)
        except (binascii.Error, ValueError, RecursionError):
            problems.add(at, "bad_cursor", "This is no cursor of ours; start again without one.")
            return None
        if order != self._order:
            problems.add(at, "bad_cursor", "This cursor belongs to another order; start again without one.")
            return None
        return After(document_id, value)

    def pagination(self, found: Listed) -> Pagination:
        """Where the page stands; `found` has one more than fits when there is a next one."""
        cursor = None
        if len(found.places) > self.size:
            last = found.places[self.size - 1]
            text = msgspec.json.encode((self._order, last.document_id, last.value))
            cursor = base64.urlsafe_b64encode(text).decode().rstrip("=")
        return Pagination(
            page_size=self.size,
            page=None if self.after else self.offset // self.size + 1,
            total=found.total,
            total_pages=None if found.total is None else -(-found.total // self.size),
            next_cursor=cursor,
        )


def _in_range(at: Place, value: int | None, most: int, problems: Problems) -> int | None:
    if value is not None and not 1 <= value <= most:
        problems.add(
            at, "out_of_range", f"{at[-1]} is out of range: from {'0' if at[-1] == 'offset' else '1'} to {most}."
        )
        return None
    return value
