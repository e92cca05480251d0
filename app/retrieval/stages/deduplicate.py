"""Drops documents that repeat others: by equal fields, or by similar texts."""

from typing import Any, ClassVar, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BIT, JSONB, aggregate_order_by

from app.retrieval.plan import constant
from app.retrieval.stages.base import Check, Lowering, Rows, SqlStage, StageType

Column = sa.ColumnElement[Any]

MOST_FIELDS = 10
MOST_TEXTS = 500
MOST_CHARACTERS = 10_000

STRING = sa.literal_column("'string'", sa.Text())
ROOT: Column = sa.literal_column("'{}'::text[]", ARRAY(sa.Text))
NO_ROWS: Column = sa.literal_column("'{}'::bigint[]", ARRAY(sa.BigInteger))
WORD = sa.literal_column("'[[:alnum:]]+'", sa.Text())
ZERO_BIT = sa.literal_column("'0'", sa.Text())
INTEGER_ONE = sa.literal_column("1", sa.Integer())
ALL = sa.literal_column("'g'", sa.Text())


class Deduplicate(SqlStage, frozen=True, kw_only=True):
    """Drop documents that repeat another one; of those that do, the `first` or the `last` is kept, where it stands.

    By `field`: documents repeat each other whose `fields` (1 to 10) are all equal. Missing and null are equal to each
    other, but a document with none of the fields repeats nothing; an array is equal as a whole. By `content`: texts
    repeat each other that share at least `similarity_threshold` (0.1 to 1) of all their words (Jaccard's index: the
    number of different words in both, divided by that in either). A document is dropped if it repeats one that is
    kept, compared one after the other from the first (or last) on. What is no text, or has no word, repeats nothing.
    Words are runs of letters and digits in the first 10,000 characters of `content_field`. The best 500 documents are
    compared; `not_compared` in the stage's metadata counts the others, which go on.

    `case_sensitive: false` compares texts (in `fields`: not those within arrays and objects) without regard to case.
    """

    stage_id: ClassVar[str] = "deduplicate"
    stage_type: ClassVar[StageType] = "reduce"
    category: ClassVar[str] = "reduce"
    icon: ClassVar[str] = "copy-minus"
    use_cases: ClassVar[tuple[str, ...]] = ("One result for each source URL", "Remove near-identical chunks of text")
    example: ClassVar[dict[str, Any]] = {"strategy": "field", "fields": ["url"], "keep": "first"}

    strategy: Literal["field", "content"] = "field"
    fields: list[str] | None = None
    content_field: str = "content"
    similarity_threshold: float = 0.95
    keep: Literal["first", "last"] = "first"
    case_sensitive: bool = True

    def check(self, check: Check) -> None:
        check.field("content_field", self.content_field)
        check.range("similarity_threshold", self.similarity_threshold, 0.1, 1)
        fields = self.fields or []
        if self.strategy == "field" and not 1 <= len(fields) <= MOST_FIELDS:
            check.add("out_of_range", f"The strategy field needs 1 to {MOST_FIELDS} fields.", "fields")
        if self.strategy == "content" and fields:
            check.add("bad_parameter", "The strategy content takes content_field, no fields.", "fields")
        for n, field in enumerate(fields):
            check.field("A field", field, "fields", n)

    def lower(self, source: sa.CTE | None, to: Lowering) -> sa.Select[Any]:
        rows = to.rows(source)
        return self._by_content(rows, to) if self.strategy == "content" else self._by_fields(rows, to)

    def _order(self, rank: Column) -> Column:
        return rank.asc() if self.keep == "first" else rank.desc()

    def _by_fields(self, rows: Rows, to: Lowering) -> sa.Select[Any]:
        keys = [rows.value(field, f"field_{n}") for n, field in enumerate(self.fields or (), start=1)]
        if not self.case_sensitive:
            keys = [
                sa.case((sa.func.jsonb_typeof(key) == STRING, sa.func.to_jsonb(sa.func.lower(_text(key)))), else_=key)
                for key in keys
            ]
        number = sa.func.row_number().over(partition_by=keys, order_by=self._order(rows.rank)).label("number")
        there = sa.or_(*(key.is_not(None) for key in keys)).label("there")
        places = sa.select(rows.rank, number, there).select_from(rows.joined).cte(f"{to.prefix}_places")
        kept = sa.or_(places.c.number == constant(1), sa.not_(places.c.there))
        return rows.select(documents=False).join(places, places.c.rank == rows.rank).where(kept)

    def _by_content(self, rows: Rows, to: Lowering) -> sa.Select[Any]:
        everyone = sa.func.count() - constant(MOST_TEXTS)
        others = sa.select(sa.func.to_jsonb(sa.func.greatest(everyone, constant(0)))).select_from(rows.source)
        to.tell("not_compared", others.scalar_subquery())
        texts = self._texts(rows, to)
        dropped = _dropped(self._repeats(texts, to), to)
        ranks = sa.select(texts.c.rank).where(texts.c.n == sa.any_(sa.cast(dropped, ARRAY(sa.BigInteger))))
        return rows.select(documents=False).where(rows.rank.not_in(ranks))

    def _texts(self, rows: Rows, to: Lowering) -> sa.CTE:
        """The rows that are compared, numbered as they are, with their texts."""
        value = rows.value(self.content_field, "content_field")
        text: Column = sa.case(
            (sa.func.jsonb_typeof(value) == STRING, sa.func.left(_text(value), constant(MOST_CHARACTERS)))
        )
        text = text if self.case_sensitive else sa.func.lower(text)
        found = sa.select(rows.rank, text.label("text")).select_from(rows.joined)
        best = found.order_by(rows.rank).limit(constant(MOST_TEXTS)).cte(f"{to.prefix}_best")
        number = sa.func.row_number().over(order_by=self._order(best.c.rank)).label("n")
        return sa.select(best.c.rank, best.c.text, number).cte(f"{to.prefix}_texts")

    def _repeats(self, texts: sa.CTE, to: Lowering) -> sa.CTE:
        """For each text that repeats earlier ones their numbers, itself numbered by `step`."""
        sets = _sets(texts, to)
        least = to.binds.add(f"{to.prefix}_similarity_threshold", sa.Numeric(), self.similarity_threshold)
        a, b = sets.alias("a"), sets.alias("b")
        both = sa.func.bit_count(a.c.shared.op("&")(b.c.shared), type_=sa.BigInteger())
        alike = both >= least * (a.c.size + b.c.size - both)
        earlier = sa.func.array_agg(aggregate_order_by(a.c.n, a.c.n)).label("earlier")
        step = sa.func.row_number().over(order_by=b.c.n).label("step")
        found = sa.select(b.c.n.label("later"), earlier, step).where(a.c.n < b.c.n, alike)
        # Else it would be computed anew for each step.
        return found.group_by(b.c.n).cte(f"{to.prefix}_repeats").prefix_with("MATERIALIZED")


def _sets(texts: sa.CTE, to: Lowering) -> sa.CTE:
    """Of each text how many different words it has, and as bits which of those that stand in several texts.

    Bits make each of up to 124,750 comparisons two operations, whatever the planner takes the texts for: 0.4 s for 500
    texts of 100 words, 4 s of 1,600. A join on words, planned for a few, took minutes.
    """
    match = sa.func.regexp_matches(texts.c.text, WORD, ALL).table_valued(
        sa.column("words", ARRAY(sa.Text)), name="match"
    )
    match = match.render_derived()
    found = sa.select(texts.c.n, match.c.words[constant(1)].label("word")).distinct()
    words = found.select_from(texts.join(match, sa.true())).cte(f"{to.prefix}_words")
    size = sa.func.count().over(partition_by=words.c.n).label("size")
    uses = sa.func.count().over(partition_by=words.c.word).label("uses")
    counted = sa.select(words.c.n, words.c.word, size, uses).cte(f"{to.prefix}_uses")
    number = sa.cast(sa.func.dense_rank().over(order_by=counted.c.word), sa.Integer).label("number")
    several = sa.select(counted.c.n, counted.c.size, number).where(counted.c.uses > constant(1))
    numbered = several.cte(f"{to.prefix}_numbers")
    zeros = sa.cast(sa.func.repeat(ZERO_BIT, sa.func.max(numbered.c.number)), BIT(varying=True))
    none = sa.select(zeros).scalar_subquery()
    words_of = numbered.alias("words_of")
    one = sa.func.set_bit(none, words_of.c.number - INTEGER_ONE, INTEGER_ONE)
    sets = sa.select(words_of.c.n, words_of.c.size, sa.func.bit_or(one).label("shared"))
    return sets.group_by(words_of.c.n, words_of.c.size).cte(f"{to.prefix}_sets")


def _dropped(repeats: sa.CTE, to: Lowering) -> sa.ScalarSelect[Any]:
    """The numbers of the texts that repeat one that is not dropped itself, found one after the other."""
    start = sa.select(sa.cast(constant(0), sa.BigInteger).label("step"), NO_ROWS.label("dropped"))
    walk = start.cte(f"{to.prefix}_walk", recursive=True)
    kept = repeats.c.earlier.op("<@", return_type=sa.Boolean())(walk.c.dropped)
    dropped = sa.case((kept, walk.c.dropped), else_=sa.func.array_append(walk.c.dropped, repeats.c.later))
    following = sa.select(repeats.c.step, dropped).select_from(
        walk.join(repeats, repeats.c.step == walk.c.step + constant(1))
    )
    walk = walk.union_all(following)
    return sa.select(walk.c.dropped).order_by(walk.c.step.desc()).limit(constant(1)).scalar_subquery()


def _text(value: Column) -> Column:
    return sa.type_coerce(value, JSONB).op("#>>", return_type=sa.Text())(ROOT)
