"""What a process holds for its life, handed down as one argument: settings, the pool, the services, and caches."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from app.inference.registry import Inference
from app.retrieval.catalog import Catalog
from app.retrieval.compiler import Pipeline
from app.retrieval.filters import FilterLimits
from app.retrieval.plan import Plan
from app.retrieval.stages.base import Limits
from app.settings import Settings

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


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
    retriever_id: str
    retriever_name: str
    version: int
    input_schema: dict[str, dict[str, object]]
    pipeline: Pipeline
    plans: Bounded[Hashable, Plan] = field(default_factory=lambda: Bounded(32))


@dataclass(frozen=True)
class Runtime:
    """One for each process. The caches never answer for a change that is committed: statements check versions."""

    settings: Settings
    engine: AsyncEngine
    inference: Inference
    prepared: Bounded[tuple[str, str], Prepared] = field(default_factory=lambda: Bounded(1_000))

    @property
    def limits(self) -> Limits:
        settings = self.settings
        filters = FilterLimits(settings.max_filter_depth, settings.max_filter_conditions)
        return Limits(settings.max_stages, settings.max_searches, settings.max_top_k, filters)
