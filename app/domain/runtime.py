"""What a process holds for its life, handed down as one argument: settings, the pool, the services, and caches."""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import create_engine
from app.db.replica import Replica
from app.errors import Unavailable
from app.extractors.isolated import Pool
from app.inference.registry import Inference
from app.retrieval.catalog import Catalog
from app.retrieval.executor import Versions
from app.retrieval.filters import Filter, FilterLimits
from app.retrieval.pipeline import Pipeline
from app.retrieval.plan import Plan
from app.retrieval.stages.base import Limits
from app.settings import Settings
from app.storage import BlobStore

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


MAX_TIME_MS = 2**31 - 1


class Bounded(Generic[K, V]):
    """A dictionary that forgets its oldest entries beyond `size`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        return self._items.get(key)

    def put(self, key: K, value: V) -> V:
        self._items.pop(key, None)
        while len(self._items) >= self._size:
            del self._items[next(iter(self._items))]
        self._items[key] = value
        return value

    def forget(self, key: K) -> None:
        self._items.pop(key, None)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A retriever checked against one version of its namespace, and the plans that were compiled for it."""

    catalog: Catalog
    retriever_id: str | None  # None where it is not stored
    retriever_name: str
    version: int | None
    input_schema: dict[str, dict[str, Any]]
    pipeline: Pipeline
    within: Filter | None = None  # the collections that it is limited to
    max_time_ms: int = MAX_TIME_MS  # of its statement, where its budget_limits say so
    shape: str = ""  # what stands for the definition of one that is not stored
    present: int | None = None  # the retriever's present version, where an older one is executed
    plans: Bounded[Hashable, Plan] = field(default_factory=lambda: Bounded(32))

    @property
    def versions(self) -> Versions:
        """What each statement must find in force."""
        return Versions(self.catalog.version, self.version if self.present is None else self.present)

    @property
    def identity(self) -> tuple[str | int | None, ...]:
        """What a cursor belongs to, beside the inputs and filters."""
        return (self.catalog.namespace_id, self.retriever_id, self.version, self.shape)

    @property
    def filters_may_be_an_input(self) -> bool:
        """langchain-mixpeek sends filters as an input: that they are where the retriever has no input of that name."""
        return "filters" not in self.input_schema and "filters" not in self.pipeline.input_names


@dataclass(frozen=True, slots=True)
class Known:
    """An estimate of a number of rows, believed until this time of the monotonic clock; and of those of a filter, how
    large a share of the iterations with it gave up (0 to 1)."""

    rows: int
    until: float
    given_up: float = 0.0


@dataclass(slots=True)
class Vitals:
    """What was last found out about the database and the queue, and until when that is believed."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    queue: dict[str, float] = field(default_factory=dict)
    queue_until: float = 0.0
    ready: dict[str, str] | Unavailable | None = None
    ready_until: float = 0.0


@dataclass(frozen=True)
class Runtime:
    """One for each process. The caches never answer for a change that is committed: statements check versions."""

    settings: Settings
    engine: AsyncEngine
    inference: Inference
    replica: Replica | None = None
    prepared: Bounded[tuple[str, ...], Prepared] = field(default_factory=lambda: Bounded(1_000))
    adhoc: Bounded[tuple[str, ...], Prepared] = field(default_factory=lambda: Bounded(200))
    estimates: Bounded[Hashable, Known] = field(default_factory=lambda: Bounded(10_000))
    filter_uses: Bounded[Hashable, int] = field(default_factory=lambda: Bounded(10_000))  # of fields without an index
    explaining: set[asyncio.Task[None]] = field(default_factory=set)  # slow statements, for the log
    sampled: Bounded[Hashable, bool] = field(default_factory=lambda: Bounded(10_000))  # queries of migrations, by hash

    @cached_property
    def vitals(self) -> Vitals:
        return Vitals()

    @cached_property
    def blobs(self) -> BlobStore:
        return BlobStore(self.settings)

    @cached_property
    def extraction(self) -> Pool:
        """The processes that read files; none is started before the first file."""
        return Pool(self.settings)

    @cached_property
    def analysts(self) -> AsyncEngine | None:
        """The pool of the analysts' login, where there is one."""
        url = self.settings.analyst_database_url
        if url is None:
            return None
        return create_engine(url.get_secret_value(), self.settings, application_name="pgretrieve-lookup")

    async def close(self) -> None:
        """Give back what this process holds."""
        if "extraction" in self.__dict__:
            await self.extraction.close()
        if self.__dict__.get("analysts") is not None:
            await self.__dict__["analysts"].dispose()
        await self.inference.close()
        await self.engine.dispose()

    @property
    def limits(self) -> Limits:
        settings = self.settings
        filters = FilterLimits(settings.max_filter_depth, settings.max_filter_conditions)
        return Limits(
            settings.max_stages,
            settings.max_searches,
            settings.max_top_k,
            filters,
            settings.max_host_rows,
            query_vectors=settings.max_query_vectors,
            contents=settings.max_query_contents,
            facets=settings.max_facets,
            query_words=settings.max_query_words,
        )
