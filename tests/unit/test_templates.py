"""Templates: what they may contain, which inputs they read, and what they make of them."""

from typing import Any

import pytest

from app.errors import Problems
from app.retrieval.templates import (
    MissingInput,
    Template,
    fill,
    input_names,
    lift,
    needed_names,
    scope_names,
    unlift,
)


def lifted(raw: Any) -> Any:
    problems = Problems()
    value = lift(raw, (), problems)
    assert not problems, problems.found
    return value


def refused(raw: Any) -> list[tuple[str | int, ...]]:
    """Where a structure is refused."""
    problems = Problems()
    lift(raw, ("body",), problems)
    return [problem.location for problem in problems.found]


def test_lifting_copies_and_replaces_templated_texts_only() -> None:
    raw = {"query": "{{INPUT.q}}", "filters": [{"value": "{{ INPUT.brand }}"}], "top_k": 5, "plain": "no {braces}"}
    value = lifted(raw)
    assert value["query"] == Template("{{INPUT.q}}")
    assert value["filters"] == [{"value": Template("{{ INPUT.brand }}")}]
    assert value["filters"] is not raw["filters"]
    assert unlift(value) == raw
    assert lifted(value) == value


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("{{INPUT.q}}", {"q"}),
        ("{{ inputs['my-name'][0:3] }}", {"my-name"}),
        ("{{Input.a.b}} and {{INPUTS.c|lower}}", {"a", "c"}),
        ("{% for tag in INPUT.tags if tag != INPUT.not %}{{ tag }}{% endfor %}", {"tags", "not"}),
        ("{% if INPUT.a %}{{ INPUT.b }}{% else %}none{% endif %}", {"a", "b"}),
        ("{% raw %}{{INPUT.q}}{% endraw %}", set()),
    ],
)
def test_names_of_inputs(source: str, names: set[str]) -> None:
    assert input_names(lifted([{"x": source}])) == names


def test_inputs_that_are_looked_after_are_not_needed() -> None:
    value = lifted(["{{ INPUT.q|default(INPUT.fallback) }}", "{% if INPUT.x is defined %}{{INPUT.x}}{% endif %}"])
    assert input_names(value) == {"q", "fallback", "x"}
    assert needed_names(value) == {"fallback"}
    assert fill(value, {"fallback": 3}) == [3, ""]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{INPUT.vector}}", [0.5, 1.5]),
        ("{{ inputs.vector[1] }}", 1.5),
        ("{{ INPUT.vector|length + 1 }}", 3),
        ("{{ INPUT.flag }}", True),
        ("{{ INPUT.none }}", None),
        ("{{ INPUT.none }} ", "None "),
        ("top {{INPUT.vector|length}}", "top 2"),
        ("{{ INPUT.tags|map('lower') }}", ["red", "blue"]),
        ("{{ INPUT.tags|join(' or ') }}", "Red or Blue"),
        ("{{ INPUT.nested|tojson }}", '{"items": {"a": 1}}'),
        ("{{ INPUT.items }} {{ INPUT.values }}", "5 6"),
        ("{{ INPUT.nested.items.a }}", 1),
        ("{{ 'yes' if INPUT.flag }}", "yes"),
        ("{{ 'no' if not INPUT.flag }}", ""),
        ("{% for k, v in INPUT.nested.items|items %}{{ loop.index }}{{ k }}{{ v }}{% endfor %}", "1a1"),
        ("<{{INPUT.markup}}>\n", "<a & b>\n"),
    ],
)
def test_filling(source: str, expected: Any) -> None:
    inputs = {
        "vector": [0.5, 1.5],
        "flag": True,
        "none": None,
        "tags": ["Red", "Blue"],
        "markup": "a & b",
        "nested": {"items": {"a": 1}},
        "items": 5,
        "values": 6,
    }
    filled = fill(lifted(source), inputs)
    assert filled == expected
    assert type(filled) is type(expected)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("{{INPUT.q}}", "q"),
        ("{{INPUT.items}}", "items"),
        ("find {{ INPUT.q|lower }}", "q"),
        ("{{ INPUT.q + 1 }}", "q"),
        ("{{ [INPUT.q] }}", "q"),
        ("{{ INPUT.have.lack }}", "lack"),
        ("{{ INPUT.text.upper }}", "upper"),
        ("{{ INPUT.text.__class__ }}", "__class__"),
        ("{{ INPUT.text['__class__'] }}", "__class__"),
        ("{{ INPUT.list|map(attribute='__class__')|list }}", "__class__"),
    ],
)
def test_missing_inputs_are_named_and_there_are_no_python_attributes(source: str, name: str) -> None:
    with pytest.raises(MissingInput) as caught:
        fill(lifted(source), {"have": {}, "text": "x", "list": ["x"]})
    assert caught.value.name == name


@pytest.mark.parametrize(
    "source",
    [
        *("{{ INPUT.q", "{{ }}", "{% if INPUT.q %}", "{{ INPUT.q|nonsense }}", "{{ INPUT.q is nonsense }}"),
        *("{{DOC.title}}", "{{ SECRET.key }}", "{{ STAGE.x }}", "{{ q }}", "{{ self }}", "{{ INPUT }}"),
        *("{{ INPUT[INPUT.q] }}", "{{ INPUT|tojson }}", "{% for input in INPUT.q %}{{ input.x }}{% endfor %}"),
        *("{{ INPUT.q.upper() }}", "{{ range(9) }}", "{{ lipsum() }}", "{{ 9 ** 9 ** 9 }}", "{{ INPUT.a ~ INPUT.b }}"),
        *("{% set x = 1 %}", "{% include 'x' %}", "{% import 'x' as y %}", "{% macro m() %}{% endmacro %}"),
        "{% for a in INPUT.q %}{% for b in INPUT.q %}{% endfor %}{% endfor %}",
        *("{{" + "(" * 4000 + "1" + ")" * 4000 + "}}", "{{" + "not " * 2000 + "1}}", "{{ " + "9" * 5000 + " }}"),
        "{{ INPUT.q }}" + " " * 10_000,
    ],
)
def test_what_is_not_part_of_templates_is_refused_with_its_place(source: str) -> None:
    assert refused([{"a": "{{INPUT.fine}}", "b": source}]) == [("body", 0, "b")]


def test_every_problem_is_found_and_nesting_is_bounded() -> None:
    deep: Any = "x"
    for _ in range(10_000):
        deep = [deep]
    places = refused({"a": "{{", "b": ["{{x}}"], "deep": deep})
    assert places[:2] == [("body", "a"), ("body", "b", 0)]
    assert len(places) == 3


def test_dynamic_values_are_templates() -> None:
    assert lifted([{"type": "dynamic", "field": "inputs.x"}]) == [Template("{{INPUT.x}}")]
    assert refused({"v": {"type": "dynamic", "field": "doc.x"}}) == [("body", "v", "field")]


@pytest.mark.parametrize(
    "source",
    [
        *("{{ INPUT.text * 9 }}", "{{ INPUT.list * 999999999 }}", "{{ '%0999999999d' % INPUT.one }}", "{{ 1 / 0 }}"),
        "{{ INPUT.nulls|map('default', INPUT.text, true)|list }}",
        "{{ INPUT.nulls|map('default', INPUT.text, true)|list|string }}",
        "x {{ INPUT.nulls|map('default', INPUT.text, true)|list }}",
        "{{ INPUT.nulls|join(INPUT.text) }}",
        "{% for x in INPUT.nulls %}{{ INPUT.text }}{% endfor %}",
        "{{ 'a'" + "|list|string" * 40 + " }}",
        "{{ '\"'" + "|tojson" * 40 + " }}",
        "{% for x in INPUT.list %}{{ loop.__class__ }}{% endfor %}",
        "{{ INPUT.empty|first }}",
    ],
)
def test_what_would_grow_or_fails_is_a_value_error(source: str) -> None:
    inputs = {"text": "x" * 500_000, "list": [1], "nulls": [None] * 1_000, "one": 1, "empty": []}
    with pytest.raises(ValueError, match="cannot be filled in"):
        fill(lifted(source), inputs)


def test_a_large_input_may_be_quoted_once() -> None:
    text = "x" * 2**20
    assert fill(lifted("data:image/png;base64,{{INPUT.image}}"), {"image": text}).endswith(text)


SCOPES = frozenset({"doc", "context", "secret"})


def scoped(raw: Any) -> Any:
    problems = Problems()
    value = lift(raw, (), problems, scopes=SCOPES)
    assert not problems, problems.found
    return value


def test_scopes_are_read_in_any_case_and_whole() -> None:
    value = scoped(
        [
            "{{DOC.a.b}}",
            "{{ doc|tojson }}",
            "[{{Context.INDEX}}] {{INPUT.q}}",
            "{% for t in doc.tags %}{{t}}{% endfor %}",
        ]
    )
    assert scope_names(value) == {"doc", "context"}
    assert input_names(value) == {"q"}
    names = {"doc": {"a": {"b": 1}, "tags": ["x", "y"]}, "context": {"INDEX": 3}}
    assert fill(value, {"q": "z"}, names) == [1, '{"a": {"b": 1}, "tags": ["x", "y"]}', "[3] z", "xy"]


def test_what_a_document_lacks_is_no_missing_input() -> None:
    with pytest.raises(ValueError, match="needs 'title', which is not there") as caught:
        fill(scoped("{{DOC.title}}"), {}, {"doc": {}})
    assert not isinstance(caught.value, MissingInput)
    with pytest.raises(MissingInput):
        fill(scoped("{{DOC.title}} {{INPUT.q}}"), {}, {"doc": {"title": "x"}})
    with pytest.raises(ValueError, match="cannot be filled in"):
        fill(scoped("{{DOC.title}}"), {}, {})
    assert fill(scoped("{{ DOC.title|default('none') }}"), {}, {"doc": {}}) == "none"


def test_a_secret_stands_by_itself() -> None:
    value = scoped({"a": "Bearer {{secrets.key}}", "b": "{{ SECRET['other'] }}"})
    assert scope_names(value) == {"secret.key", "secret.other"}
    assert fill(value, {}, {"secret": {"key": "s", "other": "t"}}) == {"a": "Bearer s", "b": "t"}


@pytest.mark.parametrize(
    "source",
    [
        *("{{ SECRET.key|upper }}", "{{ {}[SECRET.key] }}", "{{ SECRET }}", "{{ SECRET[DOC.a] }}", "{{ STAGE.x }}"),
        *("{{ SECRET|tojson }}", "{% for s in SECRET %}{{ s }}{% endfor %}", "{% if SECRET.a %}{% endif %}"),
        *("{% for doc in DOC.x %}{% endfor %}", "{{ documents }}"),
    ],
)
def test_what_scopes_do_not_allow(source: str) -> None:
    problems = Problems()
    lift(source, ("body",), problems, scopes=SCOPES)
    assert [problem.code for problem in problems.found] == ["bad_template"]
