"""Databases that documents come from, a module each: its `connect` opens a table or collection as a `Source`.

A module is found by the scheme of the address, and imported where it is asked for: some need packages that are extras.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from app.errors import InvalidRequest, Problem
from app.moving.rows import Layout, Rows
from app.retrieval.catalog import Kind, Metric, VectorConfig

# How long an answer may take, and how often a page is asked for again, within some ten seconds.
TIMEOUT_S = 60
TRIES = 6
SPELLINGS = {"postgres": "postgresql"}


@dataclass(frozen=True, slots=True)
class Found:
    """A vector of a source. Without a metric: the source has none, or none that we have, as `why` tells."""

    column: str
    dimension: int
    kind: Kind = "dense"
    metric: Metric | None = None
    why: str = "the source names none"


@dataclass(frozen=True, slots=True)
class At:
    """Where to go on: after so many rows, at a place that the source itself wrote."""

    row: int = 0
    place: str | None = None


class Source(Protocol):
    """A table or collection: its name (without secrets), its vectors, about how many rows, what of it is not taken."""

    name: str
    vectors: Sequence[Found]
    total: int
    left_out: Sequence[str]

    def read(self, configs: Mapping[str, VectorConfig], at: At) -> Iterator[Rows]:
        """Chunks of the rows after a place."""
        ...

    def close(self) -> None: ...


def connect(address: str, table: str, layout: Layout, key: str | None = None) -> Source:
    """The table or collection at an address, as `postgresql://host/database`; `key` is for those that ask for one."""
    scheme = address.partition(":")[0].partition("+")[0].lower()
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if (scheme := SPELLINGS.get(scheme, scheme)) not in known:
        message = f"Documents come from {', '.join(known)}; the address begins with one of these and a colon."
        raise InvalidRequest([Problem(("from",), "unknown_source", message)])
    module = importlib.import_module(f"{__name__}.{scheme}")
    opened: Source = module.connect(address, table, layout, key)
    return opened


def taken(source: Source, configs: Mapping[str, VectorConfig], layout: Layout) -> set[str]:
    """The columns whose vectors are taken. Raises where one does not fit the index that it is for."""
    found = {vector.column: vector for vector in source.vectors}
    layout.check(configs, {layout.document_id or "document_id", *found})
    pairs = [(config, layout.column(config, set(found))) for config in configs.values()]
    problems = []
    for config, column in pairs:
        if column is None:
            continue
        vector = found[column]
        fits = vector.kind == "sparse" or vector.dimension in (0, config.dimension)  # 0: there is none yet to tell
        if vector.kind != config.kind or not fits:
            message = (
                f"The vectors {column!r} are {vector.kind} of {vector.dimension} dimensions, the index "
                f"{config.name!r} takes {config.kind} ones of {config.dimension}."
            )
            problems.append(Problem(("vector", config.name), "vector_mismatch", message))
    if problems:
        raise InvalidRequest(problems)
    return {column for _, column in pairs if column}


def refuse_ids(layout: Layout) -> None:
    """Raise where ids are to come from a column, of a source that has ids of its own."""
    if layout.document_id is not None:
        message = "The ids are those that the collection has; --id is for files and tables."
        raise InvalidRequest([Problem(("id",), "bad_source", message)])


def again(passing: Callable[[BaseException], bool]) -> Retrying:
    """Attempts at one page of a source, while what goes wrong may pass; later where the error says `retry_after_s`."""
    growing = wait_exponential_jitter(multiplier=0.2, max=8)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(growing(state), min(float(getattr(error, "retry_after_s", 0)), TIMEOUT_S))

    return Retrying(stop=stop_after_attempt(TRIES), wait=wait, retry=retry_if_exception(passing), reraise=True)
