"""What the service makes of a request's inputs, said in SQL: for functions, whose parameters they are.

Each of these is the counterpart of a converter that stands beside it; the functions are in the schema `pgretrieve`.
"""

from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from app.retrieval.plan import FilledInSql, InSql

Part = Literal["all", "integers", "others", "floats"]
_of = sa.func.pgretrieve


def _json(function: str, *arguments: Any) -> InSql:
    """A function of the value as jsonb, and of what the definition says."""
    given = [sa.literal(argument) for argument in arguments]
    return InSql(lambda filled: getattr(_of, function)(filled.jsonb, *given))


def _object(filled: FilledInSql) -> sa.ColumnElement[Any]:
    return sa.func.jsonb_build_object(sa.literal_column("'v'"), filled.jsonb)


JSON = InSql(lambda filled: filled.jsonb)
TEXT = InSql(lambda filled: filled.text, "text")
VARIABLE = InSql(_object)
KEYS = _json("input_keys")
EXACT_KEYS = _json("input_exact_keys")
FLAG = _json("input_flag")
ALL_GIVEN = _json("input_all_given")
NUMBER = _json("input_number")
SEED = _json("input_seed")


def fixed(text: str) -> InSql:
    """The same whatever the value is."""
    return InSql(lambda _filled: sa.literal(text, sa.Text()))


def test(path: str, operator: str, fold: bool) -> InSql:
    """A jsonpath with what language A asks of the values there."""
    tested = _json("input_test", operator, fold)
    begin, end = sa.literal(f"{path} ? (", sa.Text()), sa.literal(")", sa.Text())
    return InSql(lambda filled: begin.concat(tested.make(filled)).concat(end))


def keyed_equals(fold: bool) -> InSql:
    return _json("input_keyed_test", "equals", fold)


def keyed_text(how: str, fold: bool) -> InSql | None:
    """None for tests of words, which PostgreSQL and Qdrant's tokenizer may take apart differently."""
    return _json("input_keyed_test", how, fold) if how in ("prefix", "substring") else None


def part(which: Part, *, is_list: bool) -> InSql:
    """`{"v": [those of the value, or of its elements]}`."""
    chosen = _json("input_part", which, is_list)
    return InSql(lambda filled: sa.func.jsonb_build_object(sa.literal_column("'v'"), chosen.make(filled)))


def instant(bound: str) -> InSql:
    return _json("input_instant", bound)


def count(bound: str) -> InSql:
    return _json("input_count", bound)


def ids(operator: str) -> InSql:
    return _json("input_ids", operator == "in")


def payload_keys(language: str, operator: str) -> InSql:
    return _json("input_payload_keys", language, operator == "in")


def certain(operator: str) -> InSql:
    return _json("input_certain", operator == "in")


def number_bound(operator: str) -> InSql:
    return _json("input_number_bound", operator)


def text_bound(operator: str, *, dated: bool) -> InSql:
    return _json("input_text_bound", operator, dated)


def bounds_certain(*, dated: bool) -> InSql:
    return _json("input_bounds_certain", dated)


# Queries


def words(most: int, *, required: bool) -> InSql:
    """What a lexical query asks for."""
    given = [sa.literal(required), sa.literal(most)]
    return InSql(lambda filled: _of.input_words(filled.text, *given), "text")


def has_query(filled: FilledInSql) -> sa.ColumnElement[Any]:
    """True, or NULL where the query is empty."""
    return sa.case((filled.text.regexp_match(sa.literal("\\S")), sa.true()))


HAS_QUERY = InSql(has_query, "text")


def query_text(*, required: bool) -> InSql:
    """An id of a document."""
    return InSql(lambda filled: _of.input_query(filled.text, sa.literal(required)), "text")


def embedded(service: str, task: str, *, required: bool) -> InSql:
    """What a service has made of the text; the function raises where it has not yet."""
    given = [sa.literal(service), sa.literal(task)]

    def make(filled: FilledInSql) -> sa.ColumnElement[Any]:
        text = _of.input_query(filled.text, sa.literal(required))
        return _of.embed(given[0], text, given[1])

    return InSql(make, "text")


def query_vector(kind: Literal["dense", "sparse", "multi"], *, directed: bool, most: int) -> InSql:
    """A query vector; `directed`: the metric asks for its direction."""
    match kind:
        case "sparse":
            return InSql(lambda filled: filled.typed("sparsevec"), "sparsevec")
        case "multi":
            given = [sa.literal(directed), sa.literal(most)]
            return InSql(lambda filled: _of.input_vectors(filled.typed("vector[]"), *given), "vector[]")
    return InSql(lambda filled: _of.input_vector(filled.typed("vector"), sa.literal(directed)), "vector")


def as_jsonb(value: Any) -> sa.ColumnElement[Any]:
    """A constant."""
    return sa.cast(sa.literal(value, sa.Text()), JSONB)
