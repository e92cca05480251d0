"""Collections of Qdrant, of a server or of a folder of its Python client's local mode, by the official client."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec

from app.errors import InvalidRequest, Problem, Unavailable
from app.moving.jsonl import dense
from app.moving.rows import CHUNK_BYTES, Layout, Rows
from app.moving.sources import TIMEOUT_S, At, Found, again, refuse_ids
from app.retrieval.catalog import Metric, VectorConfig
from app.retrieval.vectors import MAX_SPARSE_DIMENSION

try:
    from qdrant_client import QdrantClient
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse
except ImportError as error:
    message = f"Qdrant is read by its client ({error}): pip install 'pgretrieve[qdrant]'."
    raise Unavailable(message, code="not_installed") from None

METRICS: dict[str, Metric] = {"Cosine": "cosine", "Dot": "dot", "Euclid": "euclidean"}
# A collection's one vector that has no name in Qdrant.
UNNAMED = "vector"
# The first page shows how large points are; Python's lists of numbers take eight times what float32 takes.
FIRST_PAGE, LARGEST_PAGE = 64, 1_000


def connect(address: str, table: str, layout: Layout, key: str | None) -> "Collection":
    """`qdrant+https://host:6333`, `qdrant+http://…`, or `qdrant:FOLDER`."""
    refuse_ids(layout)
    return Collection(address.partition(":")[2] if address.startswith("qdrant:") else address[7:], table, layout, key)


class Collection:
    """A collection: points in the order of their ids, by scroll."""

    def __init__(self, place: str, collection: str, layout: Layout, key: str | None) -> None:
        self._collection, self._layout = collection, layout
        remote = place.startswith(("http:", "https:"))
        shown = httpx.URL(place).copy_with(userinfo=b"") if remote else Path(place).resolve()
        self.name = f"qdrant {shown} {collection}"
        self.left_out = [f"The API key goes to {shown} without TLS."] if key and place.startswith("http:") else []
        self._client = _client(place, key)
        try:
            info = self._asked(lambda: self._client.get_collection(collection))
        except BaseException:
            self.close()
            raise
        params = info.config.params
        named = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors} if params.vectors else {}
        self._names = {name or UNNAMED: name for name in [*named, *(params.sparse_vectors or {})]}
        self.vectors = [_found(name or UNNAMED, vector) for name, vector in named.items()]
        self.vectors += [Found(name, MAX_SPARSE_DIMENSION, "sparse", "dot") for name in params.sparse_vectors or {}]
        self.total = info.points_count or 0

    def close(self) -> None:
        self._client.close()

    def read(self, configs: Mapping[str, VectorConfig], at: At) -> Iterator[Rows]:
        """Chunks of the points from the place on, which is the next point's id; `null` after the last one."""
        columns = {c: self._layout.column(c, set(self._names)) for c in configs.values()}
        wanted = {config: self._names[column] for config, column in columns.items() if column}
        # The one without a name cannot be asked for by it.
        asked: Any = True if "" in wanted.values() else list(wanted.values()) or False
        offset, row, limit = msgspec.json.decode(at.place or "null"), at.row, FIRST_PAGE
        while row == 0 or offset is not None:
            points, offset = self._scrolled(offset, limit, asked)
            if not points:
                return
            rows = _rows(points, row, wanted, msgspec.json.encode(offset).decode())
            size = sum(map(len, rows.payloads)) + sum(_numbers(point.vector) for point in points) * 32
            row = rows.last
            yield rows
            limit = max(1, min(LARGEST_PAGE, CHUNK_BYTES * len(points) // max(size, 1)))

    def _scrolled(self, offset: Any, limit: int, asked: Any) -> Any:
        return self._asked(
            lambda: self._client.scroll(
                self._collection, limit=limit, offset=offset, with_payload=True, with_vectors=asked
            )
        )

    def _asked(self, ask: Any) -> Any:
        try:
            for attempt in again(_may_pass):
                with attempt:
                    return ask()
        except ValueError:  # the local mode's word for it
            missing = True
        except UnexpectedResponse as error:
            missing = error.status_code == 404
            if not missing:
                raise _unavailable(error) from None
        except (ApiException, ResourceExhaustedResponse) as error:
            raise _unavailable(error) from None
        assert missing
        message = f"There is no collection {self._collection!r} there."
        raise InvalidRequest([Problem(("table",), "bad_source", message)])


def _client(place: str, key: str | None) -> QdrantClient:
    if place.startswith(("http:", "https:")):
        with warnings.catch_warnings():  # that the key goes without TLS, which we tell ourselves
            warnings.simplefilter("ignore", UserWarning)
            return QdrantClient(url=place, api_key=key, timeout=TIMEOUT_S, check_compatibility=False)
    if not Path(place).is_dir():
        message = "Give Qdrant's address as qdrant+https://host:6333, or a folder that is there as qdrant:FOLDER."
        raise InvalidRequest([Problem(("from",), "bad_source", message)])
    try:
        return QdrantClient(path=place)
    except RuntimeError as error:  # another client has it open
        raise Unavailable(f"The folder cannot be read: {error}", code="source_unavailable") from None


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 429 or (error.status_code or 0) >= 500
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    return isinstance(error, ResourceExhaustedResponse)


def _unavailable(error: Exception) -> Unavailable:
    cause = error.source if isinstance(error, ResponseHandlingException) else error
    return Unavailable(f"Qdrant cannot be read: {cause or type(cause).__name__}", code="source_unavailable")


def _found(name: str, vector: Any) -> Found:
    distance = vector.distance.value
    why = f"its distance is {distance}, which no index here has"
    return Found(name, vector.size, "multi" if vector.multivector_config else "dense", METRICS.get(distance), why)


def _rows(points: list[Any], before: int, wanted: Mapping[VectorConfig, str], place: str) -> Rows:
    vectors = [{"": p.vector} if isinstance(p.vector, list) else p.vector or {} for p in points]
    count = len(points)
    columns = {config: [_plain(each.get(name)) for each in vectors] for config, name in wanted.items()}
    return Rows(
        before + count,
        list(range(before + 1, before + count + 1)),
        [str(point.id) for point in points],
        [None] * count,
        [msgspec.json.encode(point.payload or {}) for point in points],
        [b"{}"] * count,
        {config.name: dense(column, config) for config, column in columns.items()},
        place=place,
    )


def _plain(vector: Any) -> Any:
    if vector is None or isinstance(vector, list):
        return vector
    return {"indices": vector.indices, "values": vector.values}


def _numbers(vector: Any) -> int:
    """How many numbers a point's vectors have."""
    if isinstance(vector, dict):
        return sum(map(_numbers, vector.values()))
    if isinstance(vector, list):
        return sum(map(len, vector)) if vector and isinstance(vector[0], list) else len(vector)
    return 2 * len(vector.values) if vector is not None else 0
