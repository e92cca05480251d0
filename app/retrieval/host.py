"""What runs on the host sees: the rows between two statements, and what a stage may ask the service for. Pure."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from app.retrieval.vectors import Vector

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Row:
    """A document on its way through host stages.

    `fields` are its fields as they are now, JSON. `stored` is what the statement answered beside them (collection_id,
    payload, metadata, created_at, updated_at, vectors…), which no stage changes; None for one that a stage made.
    """

    document_id: str
    score: float | None
    fields: dict[str, Any] = field(default_factory=dict)
    stored: tuple[Any, ...] | None = None


class Host(Protocol):
    """What a stage may ask for. Every call ends within the time that is left, or raises."""

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    @property
    def left_s(self) -> float:
        """Seconds that are left to this execution."""
        ...

    def fill(self, value: Any, row: Row | None = None, **names: Any) -> Any:
        """A parameter with its templates filled in: from the inputs, the row (`DOC`) and further names."""
        ...

    def tell(self, key: str, value: Any) -> None:
        """What the stage answers beside its rows: shown in its statistics' `metadata`."""
        ...

    def warn(self, message: str) -> None:
        """A line of the answer's `warnings`."""
        ...

    async def each(
        self, work: Callable[[T], Awaitable[R]], items: Sequence[T], *, concurrency: int
    ) -> list[R | Exception]:
        """The results in the order of the items, so many at a time; what one raises stands in its place."""
        ...

    async def embed(self, service: str, text: str, task: Literal["query", "document"]) -> Vector: ...

    async def matching(self, condition: Any, rows: Sequence[Row]) -> list[bool]:
        """Which of the rows a filter keeps, in either filter language, decided by the database."""
        ...

    async def run(self, stages: Sequence[Any], rows: Sequence[Row] | None, inputs: Mapping[str, Any]) -> list[Row]:
        """The rows that SQL stages (`SqlStage`) answer, from these rows or from the whole namespace."""
        ...
