"""The demo's data: about 2,000 desktop applications of Debian, and queries with one known answer each.

The files are made by `app/demo/make_data.py`; `app/demo/LICENSE.md` says where they come from.
"""

import lzma
from importlib.resources import files
from typing import Literal

import msgspec

APPS_FILE = "apps.jsonl.xz"
QUERIES_FILE = "queries.json"


class App(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One application. `text` (name, summary, keywords) is what is embedded; the description is not in it."""

    id: str
    name: str
    summary: str
    description: str
    # "metainfo": written for AppStream, under a permissive licence. "package": Debian's package description.
    description_source: Literal["metainfo", "package"]
    category: str
    categories: tuple[str, ...]
    keywords: tuple[str, ...]
    package: str
    homepage: str | None
    installed_size_kb: int
    license: str | None
    text: str


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A query and the one application that it should find.

    `hand`: written for this catalogue as a user would put it, without the name. `derived`: the second
    sentence of the application's description, taken by a fixed rule; it is not part of the embedded text.
    """

    query: str
    document_id: str
    kind: Literal["hand", "derived"]


def load_apps() -> list[App]:
    """All applications, sorted by id."""
    packed = files("app.demo").joinpath(APPS_FILE).read_bytes()
    return msgspec.json.Decoder(App).decode_lines(lzma.decompress(packed))


def load_queries() -> list[Query]:
    """All known-item queries, the hand-written ones first."""
    return msgspec.json.decode(files("app.demo").joinpath(QUERIES_FILE).read_bytes(), type=list[Query])
