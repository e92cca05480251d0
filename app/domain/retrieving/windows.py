"""Pages of an execution's result: which rows are asked for, and the cursor that leads on from the last of them.

Nothing is kept between two pages: a cursor names the last documents, a rank, and what they were a result of.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from app.errors import InvalidRequest, Problem
from app.retrieval.executor import Page
from app.retrieval.plan import After

Method = Literal["cursor", "offset", "keyset", "scroll"]
# A page of a pipeline whose stages name no number of rows.
DEFAULT_SIZE = 10
# Of the documents before a page's last one, which stand in for it when it is deleted: so many are in a cursor.
SHOWN_BEFORE = 3
# Where a cursor of each method stands in a request.
PLACES: dict[Method, tuple[str, ...]] = {
    "cursor": ("body", "pagination", "cursor"),
    "offset": ("body", "pagination"),
    "keyset": ("body", "pagination", "after"),
    "scroll": ("body", "pagination", "scroll_id"),
}


@dataclass(frozen=True, slots=True)
class Window:
    """What a caller asks for. Without `size` it is as many rows as the pipeline names; `most` bounds both.

    Without both, every row is answered. `page` counts from 1; `token` is a cursor or a scroll_id, `marker` is a
    keyset's `after`.
    """

    method: Method = "cursor"
    size: int | None = None
    most: int | None = None
    page: int = 1
    token: str | None = None
    marker: Mapping[str, Any] | None = None


EVERY_ROW = Window()


@dataclass(frozen=True, slots=True)
class Limit:
    """A number that was asked for, and the smaller one that was used."""

    name: str
    requested: int
    applied: int
    ceiling: int
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The page that was answered: its size, whether more follows, and how to go on."""

    size: int
    total: int
    has_next: bool
    token: str | None
    marker: dict[str, Any] | None


class _Token(msgspec.Struct, array_like=True, frozen=True):
    of: str
    rank: int
    document_id: str
    before: tuple[str, ...] = ()


class _Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    score: float | None = None
    rank: int | None = None
    of: str | None = None
    before: tuple[str, ...] = ()


Fingerprint = Callable[[], str]


def fingerprint(*parts: Any) -> str:
    """What a cursor belongs to: the same definition, inputs and filters have the same one."""
    return hashlib.blake2b(msgspec.json.encode(parts, order="deterministic"), digest_size=9).hexdigest()


def page_of(window: Window, named: int | None, of: Fingerprint) -> tuple[Page, list[Limit]]:
    """The rows to read, and what was capped. `named` is the number of rows that the pipeline names."""
    if window.most is None and window.size is None:
        return Page(), []
    wanted = window.size or named or DEFAULT_SIZE
    size = min(wanted, window.most or wanted)
    name = "page_size" if window.method == "offset" else "limit"
    capped = [Limit(name, wanted, size, size)] if size < wanted else []
    after = _after(window, of)
    if after is None:
        return Page(size, (window.page - 1) * size), capped
    return Page(size, after=after), capped


def _after(window: Window, of: Fingerprint) -> After | None:
    if window.token is None and window.marker is None:
        return None
    at = PLACES[window.method]
    try:
        if window.marker is not None:
            marker = msgspec.convert(dict(window.marker), _Marker)
            found, after = marker.of, After(marker.id, marker.rank, marker.score, marker.before[:SHOWN_BEFORE])
        else:
            token = _decoded(window.token or "")
            found, after = token.of, After(token.document_id, token.rank, None, token.before[:SHOWN_BEFORE])
    except (ValueError, msgspec.DecodeError) as error:
        message = f"This is no {at[-1]} of ours ({error}); start again without one."
        raise InvalidRequest([Problem(at, "bad_cursor", message)]) from None
    if any("\0" in shown for shown in after.ids) or not _fits(after.rank) or (after.rank, after.score) == (None, None):
        raise InvalidRequest([Problem(at, "bad_cursor", "`after` is {id, score} of a document that was answered.")])
    if found is not None and found != of():
        message = (
            f"This {at[-1]} belongs to another query: the retriever, the inputs or the filters differ. Start again "
            "without one, or send the same inputs and filters with it."
        )
        raise InvalidRequest([Problem(at, "other_query", message)])
    return after


def _fits(rank: int | None) -> bool:
    return rank is None or 0 <= rank < 2**63


def _decoded(token: str) -> _Token:
    raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    return msgspec.json.decode(raw, type=_Token)


def place_of(page: Page, hits: Sequence[Sequence[Any]], total: int, of: Fingerprint) -> Place:
    """Where the answered page stands; `hits` are `(rank, document_id, score, …)`, one more than fit if more follows
    a page that was asked for by its place."""
    size = page.limit if page.limit is not None else total
    more = len(hits) > size if page.after is not None else page.offset + len(hits) < total
    shown = hits[:size]
    if not shown or not more:
        return Place(size, total, more, None, None)
    rank, document_id, score = shown[-1][:3]
    belongs = of()
    before = tuple(row[1] for row in shown[-2 : -2 - SHOWN_BEFORE : -1])
    raw = msgspec.json.encode(_Token(belongs, rank, document_id, before))
    token = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    marker = {"id": document_id, "score": score, "rank": rank, "of": belongs, "before": before}
    return Place(size, total, more, token, marker)
