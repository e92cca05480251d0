"""Stages that drop, draw and multiply rows answer what a plain reading of their documentation computes."""

import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.settings import Settings
from tests.db.test_stage_properties import TIGHT, given_rows, is_as, key_of, value_at
from tests.stages import Given, Stages, stages_on


@pytest.fixture(scope="module")
async def stages(conninfo: str, settings: Settings) -> AsyncIterator[Stages]:
    async with stages_on(conninfo, settings, "stage_properties_rows") as made:
        yield made


# sample


def draws(rows: list[Given], seed: int) -> list[tuple[str, int]]:
    """What each row is drawn by, least first: a hash of the seed, how many rows its document had before, and its id."""
    before: Counter[str] = Counter()
    found = []
    for n, (document_id, *_) in enumerate(rows):
        before[document_id] += 1
        found.append((hashlib.md5(f"{seed} {before[document_id]} {document_id}".encode()).hexdigest(), n))
    return found


def sampled(rows: list[Given], count: int, seed: int, top: int, field: str | None, least: int) -> list[Given]:
    drawn = draws(rows, seed)
    by_score = sorted(range(len(rows)), key=lambda n: (rows[n][1] is None, -(rows[n][1] or 0.0)))
    chosen, rest = by_score[:top], sorted(by_score[top:], key=lambda n: drawn[n])
    strata: dict[str, list[int]] = {}
    for n in rest:
        strata.setdefault(key_of(value_at(rows[n], field)) if field else "", []).append(n)
    taken = dict.fromkeys(strata, 0)
    while len(chosen) < count and any(strata.values()):
        open_ = [key for key, stratum in strata.items() if stratum]

        def claim(key: str) -> tuple[int, Fraction, int]:
            group = [n for n in rest if not field or key_of(value_at(rows[n], field)) == key]
            return min(taken[key], least), Fraction(2 * taken[key] + 1, len(group)), min(group)

        key = min(open_, key=claim)
        chosen.append(strata[key].pop(0))
        taken[key] += 1
    return [rows[n] for n in sorted(chosen)]


@settings(**TIGHT)
@given(
    given_rows(),
    st.integers(1, 6),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 3),
    st.sampled_from(["random", "reservoir", "stratified"]),
    st.integers(0, 3),
)
def test_sample_by_a_seed(
    stages: Stages, rows: list[Given], count: int, seed: int, top: int, strategy: str, least: int
) -> None:
    top, field = min(top, count), "kind" if strategy == "stratified" else None
    asked: dict[str, Any] = {"count": count, "strategy": strategy, "seed": "{{INPUT.seed}}", "preserve_top_k": top}
    asked |= {"stratify_by": field, "min_per_stratum": least}
    answer = stages(rows, ("sample", asked), inputs={"seed": seed})
    assert is_as(answer, sampled(rows, count, seed, top, field, least))


def test_a_sample_without_a_seed_draws_anew(stages: Stages) -> None:
    rows: list[Given] = [(f"d{n}", float(-n), {"kind": n % 3}) for n in range(300)]
    asked = {"count": 40, "preserve_top_k": 5}
    found = [stages(rows, ("sample", asked)).ids for _ in range(2)]
    assert found[0] != found[1]
    for ids in found:
        assert len(set(ids)) == 40
        assert ids[:5] == [f"d{n}" for n in range(5)]
        assert ids == sorted(ids, key=lambda name: int(name[1:]))


def test_strata_are_drawn_from_in_proportion(stages: Stages) -> None:
    kinds = ["common"] * 70 + ["some"] * 20 + ["rare"] * 9 + ["one"]
    rows: list[Given] = [(f"d{n}", None, {"kind": kind}) for n, kind in enumerate(kinds)]
    for seed in (1, 2, 3):
        asked = {"count": 20, "strategy": "stratified", "stratify_by": "kind", "seed": seed}
        found = Counter(row.fields["kind"] for row in stages(rows, ("sample", asked)).rows)
        assert found == {"common": 13, "some": 4, "rare": 2, "one": 1}
        found = Counter(row.fields["kind"] for row in stages(rows, ("sample", asked | {"min_per_stratum": 5})).rows)
        assert found == {"common": 9, "some": 5, "rare": 5, "one": 1}


# deduplicate


@settings(**TIGHT)
@given(given_rows(), st.sampled_from([["kind"], ["kind", "info.score"], ["document_id"]]), st.booleans(), st.booleans())
def test_deduplicate_by_fields(stages: Stages, rows: list[Given], fields: list[str], last: bool, fold: bool) -> None:
    def key(row: Given) -> list[Any]:
        found = [value_at(row, field) for field in fields]
        return [value.lower() if fold and isinstance(value, str) else value for value in found]

    kept, seen = [], set()
    for row in reversed(rows) if last else rows:
        if all(value is None for value in key(row)) or key_of(key(row)) not in seen:
            kept.append(row)
        seen.add(key_of(key(row)))
    asked = {"fields": fields, "keep": "last" if last else "first", "case_sensitive": not fold}
    assert is_as(stages(rows, ("deduplicate", asked)), kept[::-1] if last else kept)


sentences = st.one_of(
    st.lists(st.sampled_from(["The", "the", "cat", "Élan", "élan", "x1", "sat", "on"]), max_size=7).map(" ".join),
    st.sampled_from([None, 3, "?!", "cat,SAT.on;mat", ["the", "cat"]]),
)


def first_ones(contents: list[Any], threshold: str, fold: bool) -> list[int]:
    """The places of those that repeat none of those kept before them."""
    kept: list[tuple[int, set[str]]] = []
    for n, content in enumerate(contents):
        text = content if isinstance(content, str) else ""
        words = set(re.findall(r"\w+", text.lower() if fold else text))
        if not any(words and len(words & other) >= Fraction(threshold) * len(words | other) for _, other in kept):
            kept.append((n, words))
    return [n for n, _ in kept]


@settings(**TIGHT)
@given(
    st.lists(sentences, max_size=14),
    st.sampled_from(["0.1", "0.3", "0.5", "0.55", "0.6", "0.75", "0.8", "1.0"]),
    st.booleans(),
    st.booleans(),
)
def test_deduplicate_by_content(stages: Stages, texts: list[Any], threshold: str, last: bool, fold: bool) -> None:
    rows: list[Given] = [(f"d{n}", None, {"content": text}) for n, text in enumerate(texts)]
    asked = {"strategy": "content", "similarity_threshold": float(threshold), "case_sensitive": not fold}
    answer = stages(rows, ("deduplicate", asked | {"keep": "last" if last else "first"}))
    kept = first_ones(texts[::-1] if last else texts, threshold, fold)
    assert is_as(answer, [rows[n] for n in (sorted(len(rows) - 1 - n for n in kept) if last else kept)])
    assert answer.told[1] == {"not_compared": 0}


def test_what_is_compared_is_bounded(stages: Stages) -> None:
    rows: list[Given] = [(f"d{n}", None, {"content": "all the same words"}) for n in range(503)]
    answer = stages(rows, ("deduplicate", {"strategy": "content", "keep": "last"}))
    assert answer.ids == ["d499", "d500", "d501", "d502"]
    assert answer.told[1] == {"not_compared": 3}
    # Only the beginning of a text is read.
    same = "word " * 2_000
    rows = [("a", None, {"content": same + "one two three"}), ("b", None, {"content": same + "four five six"})]
    assert stages(rows, ("deduplicate", {"strategy": "content"})).ids == ["a"]


# unwind

items = st.one_of(st.none(), st.integers(0, 3), st.sampled_from(["a", [1], [[]], {"x": [1]}]))
lists = st.one_of(items, st.lists(items, max_size=4))
documents = st.fixed_dictionaries({"n": st.integers(0, 9)}, optional={"list": lists, "in": st.just({"list": [1, 2]})})


@settings(**TIGHT)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.just(1.5), documents), max_size=6),
    st.sampled_from(["list", "in.list"]),
    st.booleans(),
    st.sampled_from([None, "index"]),
    st.sampled_from([None, "in.element", "n"]),
)
def test_unwind(
    stages: Stages, rows: list[Given], field: str, preserve: bool, index: str | None, output: str | None
) -> None:
    def put(fields: Any, path: str, value: Any) -> dict[str, Any]:
        name, _, rest = path.partition(".")
        inner = fields.get(name)
        return {**fields, name: put(inner if isinstance(inner, dict) else {}, rest, value) if rest else value}

    wanted = []
    for document_id, score, found in rows:
        value = value_at((document_id, score, found), field)
        listed = list(enumerate(value)) if isinstance(value, list) else [(None, value)] if value is not None else []
        for n, element in listed:
            fields = put(found, output or field, element)
            wanted.append((document_id, score, {**fields, index: n} if index else fields))
        if preserve and not listed:
            wanted.append((document_id, score, {**found, index: None} if index else dict(found)))
    asked = {"field": field, "preserve_null_and_empty": preserve, "include_array_index": index, "output_field": output}
    answer = stages(rows, ("unwind", asked))
    assert is_as(answer, wanted)
    assert answer.told[1] == {"truncated": False}


def test_rows_of_an_unwind_are_bounded(stages: Stages) -> None:
    rows: list[Given] = [("a", None, {"list": list(range(9_000))}), ("b", None, {"list": list(range(9_000))})]
    answer = stages(rows, ("unwind", {"field": "list"}))
    assert [row.fields["list"] for row in answer.rows] == [*range(9_000), *range(1_000)]
    assert answer.told[1] == {"truncated": True}


@pytest.mark.parametrize(
    ("stage", "asked", "problem"),
    [
        ("sample", {"count": 0}, ("out_of_range", "count")),
        ("sample", {"count": 2, "preserve_top_k": 3}, ("out_of_range", "preserve_top_k")),
        ("sample", {"min_per_stratum": -1}, ("out_of_range", "min_per_stratum")),
        ("sample", {"strategy": "stratified", "stratify_by": "null"}, ("bad_parameter", "stratify_by")),
        ("sample", {"stratify_by": "kind"}, ("bad_parameter", "stratify_by")),
        ("sample", {"seed": 2**63}, ("bad_parameter", "seed")),
        ("sample", {"seed": 1.5}, ("bad_parameter", "seed")),
        ("sample", {"size": 3, "count": 4}, ("bad_parameter", "size")),
        ("deduplicate", {}, ("out_of_range", "fields")),
        ("deduplicate", {"fields": [f"f{n}" for n in range(11)]}, ("out_of_range", "fields")),
        ("deduplicate", {"fields": ["a."]}, ("bad_field", 0)),
        ("deduplicate", {"strategy": "content", "fields": ["a"]}, ("bad_parameter", "fields")),
        ("deduplicate", {"strategy": "content", "similarity_threshold": 1.5}, ("out_of_range", "similarity_threshold")),
        ("unwind", {"field": "a", "include_array_index": "a.b"}, ("bad_parameter", "include_array_index")),
        ("unwind", {"field": "a", "output_field": "score"}, ("bad_field", "output_field")),
        ("unwind", {"field": ".".join("a" * 17)}, ("bad_field", "field")),
    ],
)
def test_what_is_refused(stages: Stages, stage: str, asked: dict[str, Any], problem: tuple[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        stages([], (stage, asked))
    assert [(each.code, each.location[-1]) for each in refused.value.problems] == [problem]
