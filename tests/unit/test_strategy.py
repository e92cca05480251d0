"""The choice between exact search and the index: its bounds, and that it never passes what was asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.retrieval.filters import And, Condition, Not
from app.retrieval.literals import lift_values
from app.retrieval.strategy import CANDIDATE, EF_SEARCH_MAX, LEAST_SCAN, MOST_SCAN, Choice, Size, choose
from app.retrieval.templates import Template


def chosen(documents: int, kept: int, rows: int = 10, *, indexed: bool = True) -> Choice:
    return choose(Size(documents, kept, kept < documents, indexed), rows, ef_search=100)


@pytest.mark.parametrize(
    ("documents", "kept", "strategy"),
    [
        (100_000, 100_000, "hnsw"),
        (100_000, 50_000, "hnsw_iterative"),
        (400_000, 40_000, "hnsw_iterative"),
        (400_000, 8_000, "exact"),
        (100_000, 1_000, "exact"),
        (100_000, 10, "exact"),
        (1_000, 1_000, "exact"),
        (0, 0, "exact"),
    ],
)
def test_few_documents_are_searched_exactly(documents: int, kept: int, strategy: str) -> None:
    assert chosen(documents, kept).strategy == strategy


def test_a_filter_that_no_index_serves_makes_exact_search_dear() -> None:
    assert chosen(400_000, 4_000).strategy == "exact"
    assert chosen(400_000, 4_000, indexed=False).strategy == "hnsw_iterative"
    assert chosen(400_000, 40, indexed=False).strategy == "exact"  # the index would be read to its end


def test_a_wish_for_recall_widens_the_search_and_the_whole_of_it_is_exact() -> None:
    size = Size(1_000_000, 1_000_000, False, True)
    widths = [choose(size, 30, ef_search=40, recall_target=wish).ef_search for wish in (0.8, 0.95, 0.97, 0.99)]
    assert widths == sorted(set(widths))
    assert choose(size, 30, ef_search=40, recall_target=1.0).strategy == "exact"
    assert choose(size, 30, ef_search=40, exact=True).strategy == "exact"


@given(
    documents=st.integers(0, 10**9),
    share=st.floats(0, 1),
    rows=st.integers(1, 5_000),
    indexed=st.booleans(),
    recall=st.one_of(st.none(), st.floats(0.01, 1)),
)
def test_the_index_is_never_asked_for_more_than_exact_search_costs(
    documents: int, share: float, rows: int, indexed: bool, recall: float | None
) -> None:
    size = Size(documents, int(documents * share), share < 1, indexed)
    choice = choose(size, rows, ef_search=100, recall_target=recall)
    assert 1 <= choice.ef_search <= EF_SEARCH_MAX
    if choice.strategy != "exact":
        assert choice.strategy == ("hnsw_iterative" if size.filtered else "hnsw")
        assert choice.ef_search * CANDIDATE < size.exact_cost
    if choice.strategy == "hnsw_iterative":
        # The next power of two of half the cost of exact search, or of what finds enough of an independent filter.
        assert choice.way.scan in [2**n for n in range(8, 15)]
        needed = choice.way.spare * rows * size.documents / max(size.kept, 1)
        assert choice.way.scan < 2 * max(LEAST_SCAN, choice.ef_search, needed, size.exact_cost / CANDIDATE / 2)
        assert choice.way.scan >= min(MOST_SCAN, choice.ef_search)


def test_more_documents_and_filters_make_the_list_longer() -> None:
    widths = [chosen(documents, documents).ef_search for documents in (10_000, 100_000, 400_000, 4_000_000)]
    assert widths[0] == widths[1] == 100
    assert widths[1] < widths[2] < widths[3]
    assert chosen(400_000, 200_000).ef_search > widths[2]


def test_values_of_a_filter_are_lifted_but_for_those_that_decide_its_form() -> None:
    one = And((Condition("a", "eq", "red"), Not(Condition("b", "in", [1, 2])), Condition("c", "exists", True)))
    other = And((Condition("a", "eq", 7), Not(Condition("b", "in", ["x"])), Condition("c", "exists", True)))
    lifted, values = lift_values(one)
    assert lift_values(other) == (lifted, {"literal_filter_1": 7, "literal_filter_2": ["x"]})
    assert values == {"literal_filter_1": "red", "literal_filter_2": [1, 2]}
    for kept in (
        Condition("a", "eq", None),
        Condition("a", "eq", {"b": 1}),
        Condition("a", "eq", Template("{{INPUT.x}}")),
    ):
        assert lift_values(kept) == (kept, {})
