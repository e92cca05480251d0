"""Rescales scores to a common range."""

from typing import Any, ClassVar, Literal

import sqlalchemy as sa

from app.retrieval.stages.base import Check, Lowering, SqlStage, StageType
from app.retrieval.stages.scored import ZERO, Float, check_output, score_at, with_score
from app.retrieval.vectors import ONE

# Beyond these, squares and quotients would leave what float8 holds, which PostgreSQL answers with an error.
LARGEST: Float = sa.literal_column("1e100", sa.Double())
SMALLEST: Float = sa.literal_column("1e-100", sa.Double())
# e to this is the smallest power that float8 holds with all its digits; below it, exp() is an error.
LEAST_POWER: Float = sa.literal_column("-700", sa.Double())


class ScoreNormalize(SqlStage, frozen=True, kw_only=True):
    """Rescale the scores, or the numbers at `score_field`, by those of all documents that came this far.

    `min_max`: (x - min) / (max - min), from 0 to 1; `min_value` and `max_value` stand for the least and the greatest
    where they are given, and what lies beyond them becomes 0 or 1. `z_score`: (x - mean) / the standard deviation
    (of the whole, divided by n). `softmax`: e^x / Σ e^x. `l2`: x / √Σ x². Where all are equal, `min_max` gives 1 and
    `z_score` 0; where all are 0, `l2` gives 0.

    Without a score (a field that is missing, null or no number; an array is none) a document counts as 0. Numbers are
    taken to ±1e100, and those within ±1e-100 as 0. The result goes to `output_field`, or else to where the score was
    read. The order stays.
    """

    stage_id: ClassVar[str] = "score_normalize"
    stage_type: ClassVar[StageType] = "sort"
    category: ClassVar[str] = "sort"
    icon: ClassVar[str] = "scaling"
    use_cases: ClassVar[tuple[str, ...]] = ("One threshold for scores of any scale", "Relevance for mmr, from 0 to 1")
    example: ClassVar[dict[str, Any]] = {"method": "min_max", "output_field": "scores.normalized"}

    method: Literal["min_max", "z_score", "softmax", "l2"] = "min_max"
    score_field: str = "score"
    output_field: str | None = None
    min_value: float | None = None
    max_value: float | None = None

    @property
    def output(self) -> str:
        return self.output_field or self.score_field

    def check(self, check: Check) -> None:
        check.field("score_field", self.score_field)
        if self.output != "score":
            check_output(check, "score_field" if self.output_field is None else "output_field", self.output)
        for name in ("min_value", "max_value"):
            value = getattr(self, name)
            check.range(name, value, -1e100, 1e100)
            if value is not None and self.method != "min_max":
                check.add("bad_parameter", f"{name} is for the method min_max.", name)
        if self.min_value is not None and self.max_value is not None and self.min_value >= self.max_value:
            check.add("bad_parameter", "min_value is below max_value.", "min_value")

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = to.rows(source)
        score = sa.func.coalesce(score_at(rows, self.score_field), ZERO)
        found = sa.select(rows.rank, _bounded(score).label("x")).select_from(rows.joined)
        scores = found.cte(f"{to.prefix}_scores")
        normalised = sa.select(scores.c.rank, self._normalised(scores, to).label("x"))
        if self.method == "softmax":
            powers = normalised.cte(f"{to.prefix}_powers")
            normalised = sa.select(powers.c.rank, (powers.c.x / sa.func.sum(powers.c.x).over()).label("x"))
        values = normalised.cte(f"{to.prefix}_values")
        changed = with_score(rows, self.output, values.c.x)
        return rows.select(documents=self.output != "score", **changed).join(values, values.c.rank == rows.rank)

    def _normalised(self, scores: sa.CTE, to: Lowering) -> Float:
        """For softmax the powers, which are then divided by their sum: of differences from the greatest, so that none
        overflows."""
        x = scores.c.x
        low: Float = sa.func.min(x).over()
        high: Float = sa.func.max(x).over()
        match self.method:
            case "min_max":
                low, high = self._bound("min_value", low, to), self._bound("max_value", high, to)
                share = sa.func.least(ONE, sa.func.greatest(ZERO, (x - low) / (high - low)))
                return sa.case((high > low, share), (x >= low, ONE), else_=ZERO)
            case "z_score":
                deviation = sa.func.nullif(sa.func.stddev_pop(x).over(), ZERO)
                return sa.case(
                    (high > low, sa.func.coalesce((x - sa.func.avg(x).over()) / deviation, ZERO)), else_=ZERO
                )
            case "softmax":
                return sa.case(
                    (x - high < LEAST_POWER, ZERO), else_=sa.func.exp(sa.func.greatest(x - high, LEAST_POWER))
                )
            case "l2":
                return sa.func.coalesce(x / sa.func.nullif(sa.func.sqrt(sa.func.sum(x * x).over()), ZERO), ZERO)

    def _bound(self, name: str, found: Float, to: Lowering) -> Float:
        given: float | None = getattr(self, name)
        return found if given is None else to.binds.add(f"{to.prefix}_{name}", sa.Double(), given)


def _bounded(x: Float) -> Float:
    within = sa.func.greatest(-LARGEST, sa.func.least(LARGEST, x))
    return sa.case((sa.func.abs(x) < SMALLEST, ZERO), else_=within)
