"""How one search of a vector index runs: exactly, by the index, or by the index with iteration. Pure.

Costs are in rows that an exact search reads: a row is fetched through an index of the filter and its distance computed
(about 1.2 µs at 50 dimensions). pgvector's HNSW takes about 20 of those for each candidate in its list (`ef_search`),
as it computes the distances of a candidate's neighbours; measured on 100,000 and 400,000 vectors, by `bench/filtered`.
"""

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["exact", "hnsw", "hnsw_iterative"]

CANDIDATE = 20
# pgvector's bounds of `hnsw.ef_search`.
EF_SEARCH_MAX = 1_000
# Candidates in the list for each row that is wanted, were there no filter; below the share that a filter keeps, more.
# recall@10 of GloVe, 400,000 × 50: 0.95 to 0.96 with 1, 0.98 to 0.99 with 4.
BREADTH: tuple[tuple[float, int], ...] = ((0.9, 2), (0.95, 3), (0.97, 4), (0.99, 8), (0.999, 16))
DEFAULT_RECALL = 0.97
# Of the exact search's cost: what iteration may take before it gives up, so that both together cost twice the exact.
PATIENCE = 1.0
LEAST_SCAN = 500


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
class Choice:
    """How a search runs, with the settings that its index scan needs."""

    strategy: Strategy
    ef_search: int = 100
    max_scan_tuples: int = 20_000
    estimated: int | None = None  # documents that the filter keeps
    cost: int = 0  # in rows of an exact search


def choose(size: Size, rows: int, *, ef_search: int, recall_target: float | None = None, exact: bool = False) -> Choice:
    """The cheapest way to `rows` rows at this recall; `ef_search` is the least that the deployment wants."""
    breadth = next((breadth for recall, breadth in BREADTH if (recall_target or DEFAULT_RECALL) <= recall), None)
    if exact or breadth is None:
        return Choice("exact", ef_search, estimated=size.kept, cost=size.exact_cost)
    share = max(size.kept, 1) / max(size.documents, 1)
    least = rows if recall_target is not None and recall_target < DEFAULT_RECALL else max(rows, ef_search)
    wanted = int(breadth * rows / min(share, 1.0))
    ef = min(max(least, wanted), EF_SEARCH_MAX)
    if size.exact_cost <= CANDIDATE * max(ef, int(rows / min(share, 1.0))):
        return Choice("exact", ef, estimated=size.kept, cost=size.exact_cost)
    scan = max(LEAST_SCAN, 2 * ef, int(PATIENCE * size.exact_cost / CANDIDATE))
    return Choice("hnsw_iterative" if size.filtered else "hnsw", ef, scan, size.kept)
