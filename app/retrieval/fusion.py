"""Fusing the rows of several searches into one score per document, as SQL.

Sources: rrf is Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion" (SIGIR 2009), k = 60 as there, weighted;
dbsf normalises each search's scores to 0…1 by their minimum and maximum.
"""

from collections.abc import Callable
from typing import Any, Literal

import sqlalchemy as sa

from app.retrieval.vectors import ONE

Fusion = Literal["rrf", "dbsf", "weighted", "max"]
RRF_K = 60
_VOTE: sa.ColumnElement[float] = sa.literal_column("1::float8", sa.Double())


def vote(rank: sa.ColumnElement[int], k: int = RRF_K) -> sa.ColumnElement[float]:
    """What a rank from 1 counts in rrf."""
    return _VOTE / (sa.literal_column(str(k)) + rank)


def _rrf(hits: sa.CTE, k: int) -> sa.ColumnElement[float]:
    return sa.func.sum(hits.c.weight / (sa.literal_column(str(k)) + hits.c.rank))


def _dbsf(hits: sa.CTE, _k: int) -> sa.ColumnElement[float]:
    return sa.func.sum(hits.c.weight * hits.c.normalised)


def _weighted(hits: sa.CTE, _k: int) -> sa.ColumnElement[float]:
    return sa.func.sum(hits.c.weight * hits.c.score)


def _max(hits: sa.CTE, _k: int) -> sa.ColumnElement[float]:
    return sa.func.max(hits.c.score)


FUSIONS: dict[Fusion, Callable[[sa.CTE, int], sa.ColumnElement[float]]] = {
    "rrf": _rrf,
    "dbsf": _dbsf,
    "weighted": _weighted,
    "max": _max,
}


def normalised(search: sa.CTE) -> sa.ColumnElement[float]:
    """A search's scores stretched to 0…1; where all are equal, 1, since each is as good as the best."""
    low, high = sa.func.min(search.c.score).over(), sa.func.max(search.c.score).over()
    return sa.func.coalesce((search.c.score - low) / sa.func.nullif(high - low, sa.literal_column("0")), ONE)


def fuse(fusion: Fusion, hits: sa.CTE, k: int = RRF_K) -> sa.Select[Any]:
    """From hits (`document_id, rank, score, weight` and for dbsf `normalised`) one row and score per document."""
    return sa.select(hits.c.document_id, FUSIONS[fusion](hits, k).label("score")).group_by(hits.c.document_id)
