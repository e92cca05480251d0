"""How one search of a vector index runs: exactly, by the index, or by the index with iteration. Pure.

Costs are in rows that an exact search reads: a row is fetched through an index of the filter and its distance computed
(about 1 µs at 50 dimensions). pgvector's HNSW takes about 20 of those for each row that it hands over, as it computes
the distances of a candidate's neighbours; measured on 100,000 and 400,000 vectors, by `bench/filtered`.
"""

import math
from dataclasses import dataclass
from typing import Literal

Strategy = Literal["exact", "hnsw", "hnsw_iterative"]

CANDIDATE = 20
# pgvector's bounds of `hnsw.ef_search`.
EF_SEARCH_MAX = 1_000
# Candidates in the list for each row that is wanted, where that is more than the deployment's `ef_search`.
BREADTH = 4
# By recall: how much longer the list is than for 0.97, and how many rows a filter must let pass for each that is
# wanted. The nearer ones that a short list misses are among the spare ones: recall@10 of GloVe at 10 %, list 100, of
# 100,000 documents 0.976 with none to spare, 0.980 with 1.2 times the rows, 0.983 with 1.5 times; of 399,000, 0.94 with
# none and 0.97 with twice the rows. They cost most where a second list must be made for them: a third of 3.7 ms.
RECALLS: tuple[tuple[float, float, float], ...] = (
    (0.9, 0.5, 1),
    (0.95, 0.75, 1),
    (0.97, 1, 1),
    (0.99, 2, 3),
    (0.999, 4, 6),
)
DEFAULT_RECALL = 0.97
# The same list finds less among more: recall@10 without a filter, list 100: 0.994 of 100,000, 0.981 of 399,000; with
# one that keeps half, 0.983 and 0.970 (list 40: 0.954 and 0.929).
LIST_FOR, GROWTH = 100_000, 0.3
# And so it does among those that a filter keeps: longer by 1 / share, up to what it takes at half; iteration does the
# rest. Recall@10 where all are kept, list 64: 0.991; half, list 64: 0.979 and, correlated with the vectors, 0.964; list
# 100: 0.986 and 0.969 to 0.973, as the index happened to be built; list 115: 0.976.
FILTERED = 1.8
# Of more than twice as many, there are rows to spare, too.
SPARE_OF_MANY = 2
# Of the exact search's cost: what iteration may take before it gives up, so that both together cost 1.5 times the
# exact one. What is found late is also found badly: with 1.0, recall where enough was found is 0.976 instead of 0.984.
PATIENCE = 0.5
# Rows that iteration may read: a power of two, for each is a statement of its own. More would need more memory than
# `MEMORY` times `work_mem`: about 20 visited elements a row, 100 bytes each.
LEAST_SCAN, MOST_SCAN = 256, 16_384
MEMORY = 16
# pgvector counts visited elements, and from there on hands over what it had discarded, far or near: never reached.
UNREACHED = 64 * MOST_SCAN


@dataclass(frozen=True, slots=True)
class Size:
    """What is known of a search before it runs: documents with such a vector, and of those the filter keeps so many.

    `indexed`: indexes serve the filter, so that an exact search reads no others.
    """

    documents: int
    kept: int
    filtered: bool
    indexed: bool

    @property
    def exact_cost(self) -> int:
        return self.kept if self.indexed or not self.filtered else self.documents + self.kept


@dataclass(frozen=True, slots=True)
class Way:
    """What shapes the SQL of a search: iteration ends when `spare` times the rows passed, or `scan` rows were read."""

    strategy: Strategy
    spare: float = 2
    scan: int = MOST_SCAN


@dataclass(frozen=True, slots=True)
class Choice:
    """How a search runs, with the setting that its index scan needs."""

    way: Way
    ef_search: int = 100
    estimated: int | None = None  # documents that the filter keeps
    cost: int = 0  # in rows of an exact search

    @property
    def strategy(self) -> Strategy:
        return self.way.strategy


def choose(size: Size, rows: int, *, ef_search: int, recall_target: float | None = None, exact: bool = False) -> Choice:
    """The cheapest way to `rows` rows at this recall; `ef_search` is the list for 10 rows of 100,000 documents."""
    target = DEFAULT_RECALL if recall_target is None else recall_target
    wanted = next(((factor, spare) for recall, factor, spare in RECALLS if target <= recall), None)
    if exact or wanted is None:
        return Choice(Way("exact"), ef_search, size.kept, size.exact_cost)
    factor, spare = wanted
    spare *= SPARE_OF_MANY if size.documents > 2 * LIST_FOR else 1
    ef = _list(size, rows, ef_search, factor)
    share = min(max(size.kept, 1) / max(size.documents, 1), 1.0)
    # Where iteration is needed, it reads until enough rows pass.
    read = max(ef, int(spare * rows / share)) if size.filtered else ef
    if size.exact_cost <= CANDIDATE * read:
        return Choice(Way("exact"), ef, size.kept, size.exact_cost)
    if not size.filtered:
        return Choice(Way("hnsw"), ef, size.kept)
    scan = _power_of_two(max(read, int(PATIENCE * size.exact_cost / CANDIDATE)))
    return Choice(Way("hnsw_iterative", spare, scan), ef, size.kept)


def _list(size: Size, rows: int, ef_search: int, factor: float) -> int:
    growth = math.pow(max(size.documents / LIST_FOR, 1.0), GROWTH)
    narrowed = min(size.documents / max(size.kept, 1), FILTERED) if size.filtered else 1.0
    wanted = max(ef_search, BREADTH * rows) * factor * growth * max(narrowed, 1.0)
    return min(max(rows, round(wanted)), EF_SEARCH_MAX)


def _power_of_two(rows: int) -> int:
    return min(max(LEAST_SCAN, 1 << (rows - 1).bit_length()), MOST_SCAN)
