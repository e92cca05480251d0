"""BM25 as SQL, over the postings that triggers keep, or else over the documents themselves.

score = Σ idf · tf / (tf + k1 · (1 − b + b · length / mean length)), idf = ln(1 + (N − df + 0.5) / (df + 0.5)), over
the query's lexemes and the fields (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond",
2009, as Lucene has it: no idf is negative, no factor k1 + 1). N counts the documents with words in the field.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH, REGCONFIG, TSQUERY, TSVECTOR
from sqlalchemy.types import TypeEngine

from app.retrieval import in_sql
from app.retrieval.catalog import Catalog, LexicalField
from app.retrieval.plan import Binds, constant, keep
from app.retrieval.words import MOST_WORDS, parse


@dataclass(frozen=True, slots=True)
class Lexical:
    """A lexical search: the `top_k` best documents for the text `query` (a text or a template), of which `words` words
    count, in these `fields` by name (none: those that are declared). `where` are conditions on the catalog's
    `documents`; with `within` only documents of this relation (column `document_id`) are found."""

    query: Any
    top_k: int
    fields: Sequence[str] = ()
    min_score: float | None = None
    where: Sequence[sa.ColumnElement[bool]] = ()
    within: sa.FromClause | None = None
    words: int = MOST_WORDS
    read: Callable[[Any], Any] = keep  # checks the filled query; what it makes None finds nothing
    required: bool = True
    k1: float = 1.2
    b: float = 0.75


def _number(value: float) -> sa.ColumnElement[float]:
    return sa.cast(sa.literal_column(repr(value)), sa.Double())


_ZERO, _ONE, _HALF = sa.literal_column("0", sa.Integer), sa.literal_column("1", sa.Integer), _number(0.5)
_LAST = sa.literal_column("chr(1114111)", sa.Text())  # what begins with a prefix comes before the prefix with this
_NO_TEXT = sa.literal_column("NULL::text", sa.Text())


def by_postings(
    catalog: Catalog, asked: Lexical, fields: Sequence[LexicalField], binds: Binds, hint: str
) -> sa.Select[Any]:
    """Postings of one lexeme, frequency and length share a row: the formula is computed for rows, not for documents."""
    query = _query(asked, binds, hint)
    listed = query.fields(fields)
    terms, phrases = query.terms(listed), query.phrases(listed)
    groups = query.cte(_groups(catalog, terms), "groups")
    df = sa.func.sum(groups.c.change * sa.func.cardinality(groups.c.numbers)).label("df")
    rarity = query.rarity(terms, sa.select(groups.c.term, df).group_by(groups.c.term), _totals(catalog))
    weight = groups.c.change * query.weight(rarity, groups.c.frequency, groups.c.length)
    weighed = sa.select(weight.label("weight"), groups.c.numbers).join_from(
        groups, rarity, rarity.c.term == groups.c.term
    )
    # Unnested apart from the weight, which would be computed for each number.
    rows = query.cte(weighed, "weighed")
    each = sa.select(rows.c.weight, sa.func.unnest(rows.c.numbers).label("number")).offset(_ZERO).subquery("each")
    scored = sa.select(each.c.number, sa.func.sum(each.c.weight).label("score")).group_by(each.c.number)
    documents = _table(catalog, "documents")
    if asked.within is not None:
        same = documents.c.document_id == asked.within.c.document_id
        scored = scored.where(each.c.number.in_(sa.select(documents.c.number).join_from(documents, asked.within, same)))
    scores = scored.subquery("scored")
    ranked = sa.select(scores).order_by(scores.c.score.desc()).subquery("ranked")
    words = documents.alias("w")
    holds = sa.and_(words.c.number == ranked.c.number, words.c.field == phrases.c.field)
    found = sa.select(documents.c.document_id).where(documents.c.number == ranked.c.number)
    found = found.where(query.has_phrases(phrases, words, holds))
    if asked.where:
        same = catalog.documents.c.document_id == documents.c.document_id
        found = found.join(catalog.documents, same).where(*asked.where)
    return _best(asked, query, ranked, found)


def by_documents(
    catalog: Catalog, asked: Lexical, fields: Sequence[LexicalField], binds: Binds, hint: str
) -> sa.Select[Any]:
    """The words of every document are found anew: complete without an index, and slow."""
    query = _query(asked, binds, hint)
    listed = query.fields(fields)
    terms, phrases = query.terms(listed), query.phrases(listed)
    texts = query.cte(_texts(catalog, listed), "texts")
    found = _unnested(texts.c.words, "found")
    lexeme = found.c.lexeme.collate("C")
    within = sa.and_(lexeme >= terms.c.lexeme, lexeme < terms.c.beyond)
    meant = sa.case((terms.c.beyond.is_(None), lexeme == terms.c.lexeme), else_=within)
    frequency = sa.func.cardinality(found.c.positions).label("frequency")
    counted = sa.select(terms.c.term, texts.c.document_id, texts.c.length, frequency).join_from(texts, found, sa.true())
    asked_for = sa.and_(terms.c.field == texts.c.field, meant, _counts(lexeme, texts))
    hits = query.cte(counted.join(terms, asked_for), "hits")
    count, mean = (sa.cast(each, sa.Double) for each in (sa.func.count(), sa.func.avg(texts.c.length)))
    totals = sa.select(texts.c.field, count.label("documents"), mean.label("mean"))
    df = sa.select(hits.c.term, sa.func.count().label("df")).group_by(hits.c.term)
    rarity = query.rarity(terms, df, totals.group_by(texts.c.field).subquery("totals"))
    weight = query.weight(rarity, hits.c.frequency, hits.c.length)
    scored = sa.select(hits.c.document_id, sa.func.sum(weight).label("score"))
    scored = scored.join_from(hits, rarity, rarity.c.term == hits.c.term).group_by(hits.c.document_id)
    if asked.within is not None:
        scored = scored.where(hits.c.document_id.in_(sa.select(asked.within.c.document_id)))
    scores = scored.subquery("scored")
    ranked = sa.select(scores).order_by(scores.c.score.desc()).subquery("ranked")
    documents = catalog.documents
    holds = sa.and_(texts.c.document_id == ranked.c.document_id, texts.c.field == phrases.c.field)
    row = sa.select(documents.c.document_id).where(documents.c.document_id == ranked.c.document_id)
    return _best(asked, query, ranked, row.where(query.has_phrases(phrases, texts, holds), *asked.where))


def _best(asked: Lexical, query: "_Query", ranked: sa.Subquery, found: sa.Select[Any]) -> sa.Select[Any]:
    """The best that `found` finds, looked for one by one from the best on; those that score like the last, too."""
    row = found.limit(_ONE).lateral("found")
    rows = sa.select(row.c.document_id, ranked.c.score).join_from(ranked, row, sa.true())
    if asked.min_score is not None:
        rows = rows.where(ranked.c.score >= query.binds.add(f"{query.hint}_min_score", sa.Double(), asked.min_score))
    return rows.order_by(ranked.c.score.desc()).fetch(constant(asked.top_k), with_ties=True)


def _query(asked: Lexical, binds: Binds, hint: str) -> "_Query":
    def convert(text: Any) -> str:
        given = asked.read(text)
        return msgspec.json.encode(parse("" if given is None else given, asked.words)).decode()

    return _Query(
        asked,
        binds.add(hint, JSONB(), asked.query, convert, in_sql.words(asked.words, required=asked.required)),
        binds,
        hint,
    )


@dataclass(frozen=True, slots=True)
class _Query:
    """What both ways share: the query's terms and phrases, and the formula.

    CTEs are materialised, and a LATERAL has OFFSET 0 or LIMIT 1: so the plan is what it reads like, whatever PostgreSQL
    guesses of arrays and of tables that grow.
    """

    asked: Lexical
    text: sa.ColumnElement[Any]  # jsonb: `words`, `phrases`, `prefixes`
    binds: Binds
    hint: str

    def cte(self, select: sa.Select[Any], name: str) -> sa.CTE:
        return select.cte(f"{self.hint}_{name}").prefix_with("MATERIALIZED")

    def fields(self, fields: Sequence[LexicalField]) -> sa.CTE:
        """`field, path, config, min_length, max_length`: what is searched, and how."""
        given = self.binds.add(f"{self.hint}_fields", JSONB(), msgspec.json.encode(fields).decode())
        columns = (
            sa.column("field", sa.SmallInteger),
            sa.column("path", JSONPATH),
            sa.column("language", sa.Text),
            sa.column("min_length", sa.Integer),
            sa.column("max_length", sa.Integer),
        )
        read = sa.func.jsonb_to_recordset(given).table_valued(*columns).render_derived("given", with_types=True)
        config = sa.cast(read.c.language, REGCONFIG).label("config")
        return self.cte(sa.select(read.c.field, read.c.path, config, read.c.min_length, read.c.max_length), "fields")

    def terms(self, fields: sa.CTE) -> sa.CTE:
        """`term, field, lexeme, beyond, times`: what is looked for. A prefix stands for the lexemes from `lexeme` to
        before `beyond`; a word counts as often as it is asked for."""
        asked = self.text.op("->>", return_type=sa.Text())(sa.literal_column("'words'"))
        vector = sa.func.to_tsvector(fields.c.config, asked, type_=TSVECTOR)
        words = _unnested(vector, "words")
        times = sa.func.cardinality(words.c.positions).label("times")
        plain = sa.select(fields.c.field, words.c.lexeme, _NO_TEXT.label("beyond"), times).join_from(
            fields, words, sa.true()
        )
        given = self.text.op("->")(sa.literal_column("'prefixes'"))
        prefixes = sa.func.jsonb_array_elements_text(given).table_valued("text").render_derived("prefixes")
        stems = sa.func.tsvector_to_array(
            sa.func.to_tsvector(fields.c.config, prefixes.c.text), type_=sa.ARRAY(sa.Text)
        )
        first = sa.func.array_to_string(stems, sa.literal_column("''"), type_=sa.Text)
        lexeme = sa.func.coalesce(
            sa.func.nullif(first, sa.literal_column("''")), sa.func.lower(prefixes.c.text), type_=sa.Text
        )
        begun = sa.select(fields.c.field, lexeme, lexeme.op("||", return_type=sa.Text())(_LAST), _ONE)
        both = sa.union_all(plain, begun.join_from(fields, prefixes, sa.true())).subquery("both")
        number = sa.func.row_number().over().label("term")
        lexemes = [both.c[name].collate("C").label(name) for name in ("lexeme", "beyond")]
        return self.cte(sa.select(number, both.c.field, *lexemes, both.c.times), "terms")

    def phrases(self, fields: sa.CTE) -> sa.CTE:
        """`phrase, field, query`: phrases of more than stop words, as each field's language has them."""
        texts = sa.func.jsonb_array_elements_text(self.text.op("->")(sa.literal_column("'phrases'")))
        given = texts.table_valued("text", with_ordinality="phrase").render_derived("given")
        query = sa.func.phraseto_tsquery(fields.c.config, given.c.text, type_=TSQUERY)
        rows = sa.select(given.c.phrase, fields.c.field, query.label("query")).join_from(fields, given, sa.true())
        return self.cte(rows.where(sa.func.numnode(query) > _ZERO), "phrases")

    def has_phrases(
        self, phrases: sa.CTE, words: sa.FromClause, holds: sa.ColumnElement[bool]
    ) -> sa.ColumnElement[bool]:
        """Whether each phrase stands in one of the fields; `holds` says which rows of `words` are the document's."""
        wanted = phrases.alias("wanted")
        has = (
            sa.select(_ONE)
            .select_from(phrases)
            .join(words, sa.and_(holds, words.c.words.bool_op("@@")(phrases.c.query)))
        )
        lacking = (
            sa.select(_ONE).select_from(wanted).where(sa.not_(has.where(phrases.c.phrase == wanted.c.phrase).exists()))
        )
        return sa.not_(lacking.exists())

    def rarity(self, terms: sa.CTE, frequencies: sa.Select[Any], totals: sa.FromClause) -> sa.CTE:
        """`term, weight, mean`: idf times how often it is asked for, and the field's mean length, from `term, df`. The
        lexemes of a prefix share one idf, that of their sum."""
        df = frequencies.subquery("frequencies")
        least = sa.func.least(sa.cast(df.c.df, sa.Double), totals.c.documents, type_=sa.Double)
        idf = sa.func.ln(_ONE + (totals.c.documents - least + _HALF) / (least + _HALF), type_=sa.Double)
        weight = (terms.c.times * idf).label("weight")
        found = sa.select(df.c.term, weight, totals.c.mean).join_from(df, terms, terms.c.term == df.c.term)
        return self.cte(found.join(totals, totals.c.field == terms.c.field), "rarity")

    def weight(self, rarity: sa.CTE, frequency: sa.ColumnElement[int], length: sa.ColumnElement[int]) -> Any:
        k1, b = self.asked.k1, self.asked.b
        return (
            rarity.c.weight * frequency / (frequency + _number(k1 * (1 - b)) + _number(k1 * b) * length / rarity.c.mean)
        )


_TABLES: dict[str, dict[str, TypeEngine[Any]]] = {
    "documents": {"number": sa.BigInteger(), "field": sa.SmallInteger(), "document_id": sa.Text(), "words": TSVECTOR()},
    "postings": {
        "field": sa.SmallInteger(),
        "lexeme": sa.Text(),
        "frequency": sa.SmallInteger(),
        "length": sa.Integer(),
        "change": sa.SmallInteger(),
        "numbers": sa.ARRAY(sa.BigInteger),
    },
    "totals": {"field": sa.SmallInteger(), "documents": sa.BigInteger(), "lexemes": sa.BigInteger()},
}


def _table(catalog: Catalog, name: str) -> sa.TableClause:
    """One of the tables that the triggers fill; `0006_lexical.sql` says what they hold."""
    columns = (sa.column(column, type_) for column, type_ in _TABLES[name].items())
    return sa.table(f"lexical_{name}", *columns, schema=catalog.schema)


def _groups(catalog: Catalog, terms: sa.CTE) -> sa.Select[Any]:
    """The rows of the postings for each term, by its lexeme or its range of them."""
    found = []
    for n, is_prefix in enumerate((False, True)):
        postings = _table(catalog, "postings").alias(f"p{n}")
        lexeme = postings.c.lexeme
        meant = sa.and_(lexeme >= terms.c.lexeme, lexeme < terms.c.beyond) if is_prefix else lexeme == terms.c.lexeme
        columns = (postings.c.frequency, postings.c.length, postings.c.change, postings.c.numbers)
        rows = sa.select(*columns).where(postings.c.field == terms.c.field, meant).offset(_ZERO).lateral(f"found_{n}")
        kind = terms.c.beyond.is_not(None) if is_prefix else terms.c.beyond.is_(None)
        found.append(sa.select(terms.c.term, *rows.c).join_from(terms, rows, sa.true()).where(kind))
    return sa.select(sa.union_all(*found).subquery("every"))


def _totals(catalog: Catalog) -> sa.Subquery:
    """`field, documents, mean`: how many documents have words in the field, and how many each on the average."""
    totals = _table(catalog, "totals")
    documents, lexemes = (sa.cast(sa.func.sum(column), sa.Double) for column in (totals.c.documents, totals.c.lexemes))
    mean = lexemes / sa.func.nullif(documents, _ZERO, type_=sa.Double)
    summed = sa.select(totals.c.field, documents.label("documents"), mean.label("mean"))
    return summed.group_by(totals.c.field).subquery("totals")


def _texts(catalog: Catalog, fields: sa.CTE) -> sa.Select[Any]:
    """`document_id, field, words, length` of every document's fields that have words."""
    documents = catalog.documents
    words = sa.func.pgretrieve.lexical_words(fields.c.config, documents.c.payload, fields.c.path, type_=TSVECTOR)
    read = sa.select(documents.c.document_id, fields, words.label("words")).join_from(documents, fields, sa.true())
    texts = read.offset(_ZERO).subquery("read")
    each = _unnested(texts.c.words, "each")
    summed = sa.select(sa.func.sum(sa.func.cardinality(each.c.positions)).label("length"))
    length = summed.where(_counts(each.c.lexeme, texts)).lateral("l")
    rows = sa.select(texts, length.c.length).join_from(texts, length, sa.true())
    return rows.where(length.c.length > _ZERO)


def _counts(lexeme: sa.ColumnElement[str], field: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.func.length(lexeme).between(field.c.min_length, field.c.max_length)


def _unnested(words: sa.ColumnElement[Any], name: str) -> Any:
    """The lexemes of a tsvector, each with its positions."""
    columns: tuple[sa.ColumnClause[Any], ...] = (
        sa.column("lexeme", sa.Text),
        sa.column("positions", sa.ARRAY(sa.SmallInteger)),
        sa.column("weights"),
    )
    return sa.func.unnest(words).table_valued(*columns).render_derived(name)
