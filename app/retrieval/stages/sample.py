"""Draws a sample of the rows."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import sqlalchemy as sa

from app.retrieval import in_sql
from app.retrieval.plan import constant
from app.retrieval.stages.base import Check, Lowering, Rows, SqlStage, StageType
from app.retrieval.stages.scored import score_at
from app.retrieval.templates import is_templated

Column = sa.ColumnElement[Any]

MOST = 1_000
SEEDS = 2**63


class Sample(SqlStage, frozen=True, kw_only=True):
    """Draw `count` documents (1 to 1,000; all, where there are no more); they stay in the order that they came in.

    `random`: each is as likely as any other. `reservoir`: the same; the database never holds more than `count` of the
    sample. `stratified`: from each group of equal values of `stratify_by` in proportion to its size. The first
    `min_per_stratum` of each group come before all others, the larger groups' first should `count` not do for all; then
    the group with the greatest size / (2 × drawn + 1) gives the next (Sainte-Laguë). Documents where the field is
    missing or null are a group of their own, and an array is equal as a whole.

    With a `seed` (a whole number, or a template of one) the same documents give the same sample: each is drawn by a
    hash of its id and the seed. Without one every execution draws anew, the next page too. The `preserve_top_k` with
    the best scores are always kept and count, ties by their order; the others are drawn from the rest.
    """

    stage_id: ClassVar[str] = "sample"
    stage_type: ClassVar[StageType] = "reduce"
    category: ClassVar[str] = "reduce"
    icon: ClassVar[str] = "dices"
    use_cases: ClassVar[tuple[str, ...]] = ("Some of each category for people to rate", "Less for a costly next stage")
    example: ClassVar[dict[str, Any]] = {
        "count": 20,
        "strategy": "stratified",
        "stratify_by": "category",
        "seed": 42,
    }
    aliases: ClassVar[Mapping[str, str]] = {"size": "count", "method": "strategy"}

    count: int = 10
    strategy: Literal["random", "stratified", "reservoir"] = "random"
    stratify_by: str | None = None
    min_per_stratum: int = 1
    seed: Any = None
    preserve_top_k: int = 0

    @property
    def stratum(self) -> str | None:
        """The official client's model writes the text "null" where nothing was given."""
        return None if self.stratify_by == "null" else self.stratify_by

    def check(self, check: Check) -> None:
        check.range("count", self.count, 1, MOST)
        check.range("min_per_stratum", self.min_per_stratum, 0, MOST)
        check.range("preserve_top_k", self.preserve_top_k, 0, min(self.count, MOST))
        if (self.stratum is None) == (self.strategy == "stratified"):
            check.add("bad_parameter", "The strategy stratified needs stratify_by, no other takes it.", "stratify_by")
        if self.stratum is not None:
            check.field("stratify_by", self.stratum)
        if self.seed is not None and not is_templated(self.seed) and not _is_seed(self.seed):
            check.add("bad_parameter", "seed is a whole number of 64 bits, or a template of one.", "seed")

    def most_rows(self) -> int:
        return self.count

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = to.rows(source)
        draws = self._draws(rows, to)
        rest = draws.c.best > constant(self.preserve_top_k)
        order = [rest, *self._by_stratum(draws, rest), draws.c.draw, draws.c.rank]
        drawn = sa.select(draws.c.rank).order_by(*order).limit(constant(self.count)).cte(f"{to.prefix}_drawn")
        return rows.select(documents=False).join(drawn, drawn.c.rank == rows.rank)

    def _draws(self, rows: Rows, to: Lowering) -> sa.CTE:
        """For each row its place by score, its random `draw`, and its stratum."""
        best = sa.func.row_number().over(order_by=[score_at(rows, "score").desc().nulls_last(), rows.rank])
        columns = [rows.rank, best.label("best"), self._draw(rows, to).label("draw")]
        if self.stratum is not None:
            columns.append(rows.value(self.stratum, "stratify_by").label("stratum"))
        return sa.select(*columns).select_from(rows.joined).cte(f"{to.prefix}_draws")

    def _draw(self, rows: Rows, to: Lowering) -> Column:
        if self.seed is None:
            return sa.func.random()
        # A document may have several rows, as after an unwind: each is drawn by itself.
        again = sa.func.row_number().over(partition_by=rows.document_id, order_by=rows.rank)
        seed = to.binds.add(f"{to.prefix}_seed", sa.Text(), self.seed, _seed, in_sql.SEED)
        space = sa.literal_column("' '", sa.Text())
        return sa.func.md5(sa.func.concat(seed, space, again, space, rows.document_id))

    def _by_stratum(self, draws: sa.CTE, rest: Column) -> list[Column]:
        """With n drawn of a stratum, its next has size / (2n + 1): for its p-th, size / (2p - 1), greatest first."""
        if self.stratum is None:
            return []
        of: dict[str, Any] = {"partition_by": [rest, draws.c.stratum]}
        place = sa.func.row_number().over(**of, order_by=[draws.c.draw, draws.c.rank])
        size, first = sa.func.count().over(**of), sa.func.min(draws.c.rank).over(**of)
        tier = sa.func.least(place, constant(self.min_per_stratum + 1))
        share = sa.cast(constant(2) * place - constant(1), sa.Double) / size
        return [tier, share, first]


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -SEEDS <= value < SEEDS


def _seed(value: Any) -> str:
    if not _is_seed(value):
        raise ValueError("seed is a whole number of 64 bits")
    return str(value)
