"""Collections of Chroma, by its HTTP API (v2): its package is 280 MB more, and would make each collection's embedder.

Chroma answers in the order in which records came, by offset. One that was deleted meanwhile moves the others, so pages
overlap by one record: the last id is looked for where it was.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

from app.errors import InvalidRequest, Problem, Unavailable
from app.moving.jsonl import dense
from app.moving.rows import CHUNK_BYTES, Layout, Rows
from app.moving.sources import TIMEOUT_S, At, Found, again, refuse_ids
from app.retrieval.catalog import Metric, VectorConfig

METRICS: dict[str, Metric] = {"cosine": "cosine", "ip": "dot", "l2": "euclidean"}
EMBEDDING, DOCUMENT, URI = "embedding", "document", "uri"
# The first page shows how large records are. Chroma's cloud answers 300 at most.
FIRST_PAGE, LARGEST_PAGE = 64, 300
INCLUDED = ["documents", "metadatas", "uris"]


class Records(msgspec.Struct):
    """An answer to `get`."""

    ids: list[str]
    embeddings: list[list[float] | None] | None = None
    documents: list[str | None] | None = None
    metadatas: list[dict[str, Any] | None] | None = None
    uris: list[str | None] | None = None


class Place(msgspec.Struct):
    """Where to go on: how many records were before, and the id of the last of them."""

    offset: int = 0
    last: str | None = None


class Busy(Exception):
    """The server asks to wait."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"{answer.status_code} {answer.reason_phrase}")
        told = answer.headers.get("Retry-After", "")
        self.retry_after_s = int(told) if told.isdecimal() else 0


def connect(address: str, table: str, layout: Layout, key: str | None) -> "Collection":
    """`chroma+http://host:8000`, with `/TENANT/DATABASE` where they are not Chroma's defaults."""
    refuse_ids(layout)
    place = address.removeprefix("chroma+")
    if not place.startswith(("http:", "https:")):
        message = (
            "Give Chroma's address as chroma+http://host:8000 (with /TENANT/DATABASE, if need be); a folder is "
            "served by `chroma run --path FOLDER`."
        )
        raise InvalidRequest([Problem(("from",), "bad_source", message)])
    return Collection(httpx.URL(place), table, layout, key)


class Collection:
    """A collection: records in the order in which they came."""

    def __init__(self, url: httpx.URL, collection: str, layout: Layout, key: str | None) -> None:
        shown = url.copy_with(userinfo=b"")
        self.name = f"chroma {shown} {collection}"
        self._collection, self._layout = collection, layout
        self.left_out = [f"The API key goes to {shown} without TLS."] if key and url.scheme == "http" else []
        # The cloud reads the one header, servers with tokens the other one by default.
        headers = {"X-Chroma-Token": key, "Authorization": f"Bearer {key}"} if key else {}
        tenant, _, database = url.path.strip("/").partition("/")
        owner = (
            f"{quote(tenant or 'default_tenant', safe='')}/databases/{quote(database or 'default_database', safe='')}"
        )
        base = url.copy_with(path=f"/api/v2/tenants/{owner}/collections")
        self._client = httpx.Client(base_url=base, headers=headers, timeout=TIMEOUT_S)
        try:
            found = msgspec.json.decode(self._asked("GET", quote(collection, safe="")))
            self._id = found["id"]
            self.total = int(self._asked("GET", f"{self._id}/count"))
        except BaseException:
            self.close()
            raise
        space = _space(found)
        why = f"its space is {space!r}" if space else "the collection names no space"
        self.vectors = [Found(EMBEDDING, found["dimension"] or 0, "dense", METRICS.get(space), why)]

    def close(self) -> None:
        self._client.close()

    def read(self, configs: Mapping[str, VectorConfig], at: At) -> Iterator[Rows]:
        """Chunks of the records after the place. What is deleted meanwhile costs no other one."""
        wanted = [config for config in configs.values() if self._layout.column(config, {EMBEDDING})]
        place = msgspec.json.decode(at.place, type=Place) if at.place else Place()
        row, limit = at.row, FIRST_PAGE
        include = [*INCLUDED, "embeddings"] if wanted else INCLUDED
        while True:
            body = self._got(place.offset, limit, include)
            found = msgspec.json.decode(body, type=Records)
            if place.offset and (not found.ids or found.ids[0] != place.last):
                place = self._sought(place)
                continue
            rows = _rows(found, row, wanted, 1 if place.offset else 0)
            if not rows.ids:
                return
            place = Place(place.offset + len(rows.ids), rows.ids[-1])
            rows.place, row = msgspec.json.encode(place).decode(), rows.last
            yield rows
            limit = max(1, min(LARGEST_PAGE, CHUNK_BYTES * len(found.ids) // (4 * len(body))))

    def _got(self, offset: int, limit: int, include: list[str]) -> bytes:
        """Records after the offset, with the one before them."""
        overlap = 1 if offset else 0
        asked = {"offset": offset - overlap, "limit": limit + overlap, "include": include}
        return self._asked("POST", f"{self._id}/get", asked)

    def _sought(self, place: Place) -> Place:
        """Where the last record is now. Where it is gone, all come again: each replaces itself."""
        end = place.offset
        while end > 0:
            begin = max(0, end - LARGEST_PAGE)
            ids = msgspec.json.decode(self._got(begin, end - begin, []), type=Records).ids
            if place.last in ids:
                return Place(ids.index(place.last) + begin + (0 if begin else 1), place.last)
            end = begin
        return Place()

    def _asked(self, method: str, path: str, body: Any = None) -> bytes:
        try:
            for attempt in again(lambda error: isinstance(error, Busy | httpx.TransportError)):
                with attempt:
                    answer = self._client.request(method, path, json=body)
                    if answer.status_code == 429 or answer.status_code >= 500:
                        raise Busy(answer)
        except (Busy, httpx.HTTPError) as error:
            told = str(error) or type(error).__name__
            raise Unavailable(f"Chroma cannot be read: {told}", code="source_unavailable") from None
        if answer.status_code == 404:
            message = f"There is no collection {self._collection!r} there."
            raise InvalidRequest([Problem(("table",), "bad_source", message)])
        if answer.status_code != 200:
            told = f"{answer.status_code} {answer.text[:200]}"
            raise Unavailable(f"Chroma cannot be read: {told}", code="source_unavailable")
        return answer.content


def _space(found: Mapping[str, Any]) -> str:
    """How it compares; older collections have it among their metadata."""
    configuration = found.get("configuration_json") or {}
    index = configuration.get("hnsw") or configuration.get("spann") or {}
    return str(index.get("space") or (found.get("metadata") or {}).get("hnsw:space") or "")


def _rows(found: Records, before: int, wanted: list[VectorConfig], overlap: int) -> Rows:
    ids = found.ids[overlap:]
    nothing: list[Any] = [None] * len(found.ids)
    parts = zip(found.documents or nothing, found.metadatas or nothing, found.uris or nothing, strict=True)
    payloads = [_payload(*part) for part in parts][overlap:]
    embeddings = (found.embeddings or nothing)[overlap:]
    count = len(ids)
    return Rows(
        before + count,
        list(range(before + 1, before + count + 1)),
        ids,
        [None] * count,
        payloads,
        [b"{}"] * count,
        {config.name: dense(embeddings, config) for config in wanted},
    )


def _payload(document: str | None, metadata: dict[str, Any] | None, uri: str | None) -> bytes:
    """The metadata, and beside them the document. A field that has its name stands aside: `metadata_document`."""
    own = {name: value for name, value in ((DOCUMENT, document), (URI, uri)) if value is not None}
    fields = {f"metadata_{name}" if name in own else name: value for name, value in (metadata or {}).items()}
    return msgspec.json.encode({**fields, **own})
