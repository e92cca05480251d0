"""The statistics of a proof: what they make of one model, of two, and of everything between."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.promoting.agreement import Agreement, compare
from app.domain.promoting.proof_rows import prose_fields
from app.inference.base import Vectors

ROWS, DIMENSION = 64, 96


def model(seed: int, rows: int = ROWS, mean: float = 0.0) -> Vectors:
    """Unit vectors of `rows` texts by one model; a greater `mean` brings all of them closer together, as E5's are."""
    draw = np.random.default_rng(seed)
    vectors = draw.standard_normal((rows, DIMENSION)) + mean * draw.standard_normal(DIMENSION)
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def noisy(vectors: Vectors, noise: float) -> Vectors:
    made: Vectors = vectors + noise * model(7, len(vectors)).astype(np.float32)
    return made


seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.floats(0, 3), st.floats(1e-3, 1e3))
def test_the_same_vectors_are_the_same_at_any_length(seed: int, mean: float, length: float) -> None:
    vectors = model(seed, mean=mean)
    found = compare(vectors * np.float32(length), vectors)
    assert found.finding == "same"
    assert found.self_recall == found.agreeing == 1
    assert found.agreement == pytest.approx(1, abs=1e-4)
    assert found.structure == pytest.approx(1, abs=1e-3)
    assert found.norms[1] == pytest.approx(length, rel=1e-4)
    assert (found.scale == "same") == (abs(length - 1) < 0.02)


@given(seeds, seeds, st.floats(0, 3))
def test_two_models_are_never_taken_for_one_however_close_their_vectors_lie(one: int, two: int, mean: float) -> None:
    if one == two:
        return
    both = np.float32(mean) * model(5, 1)  # what all texts of both models share
    found = compare(model(one) + both, model(two) + both)
    assert found.finding == "other"
    assert found.self_recall < 0.2


@given(seeds)
def test_neither_the_order_of_rows_nor_that_of_dimensions_means_anything(seed: int) -> None:
    draw = np.random.default_rng(seed)
    stored, new = model(1), noisy(model(1), 0.3)
    rows, axes = draw.permutation(ROWS), draw.permutation(DIMENSION)
    moved, found = compare(stored[rows][:, axes], new[rows][:, axes]), compare(stored, new)
    assert moved.finding == found.finding
    assert numbers(moved) == pytest.approx(numbers(found), abs=1e-4)


def numbers(found: Agreement) -> Sequence[float]:
    return found.median_cosine, found.p5_cosine, found.agreement, found.agreeing, found.self_recall, found.structure


@pytest.mark.parametrize(("noise", "finding"), [(0.01, "same"), (0.4, "near"), (1.0, "related"), (30, "other")])
def test_what_lies_between(noise: float, finding: str) -> None:
    assert compare(model(1), noisy(model(1), noise)).finding == finding


def test_rows_of_two_models_are_told_apart_from_either() -> None:
    mixed = np.concatenate([model(1)[:40], model(2)[40:]])
    found = compare(mixed, model(1))
    assert (found.finding, round(found.agreeing * ROWS)) == ("mixed", 40)
    few = np.concatenate([model(1)[:4], model(2)[4:]])
    assert compare(few, model(1)).finding == "mixed"
    most = np.concatenate([model(1)[:60], model(2)[60:]])
    assert compare(most, model(1)).finding == "same"


def test_equal_stored_vectors_are_as_good_as_ones_own() -> None:
    """Documents of different texts may share a vector, as where a model sees only their beginning."""
    vectors = model(1)
    vectors[1] = vectors[0]
    assert compare(vectors, vectors).self_recall == 1


def test_another_model_that_orders_the_same_texts_alike_is_known_by_it() -> None:
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
    found = compare(model(1), model(1) @ turn)
    assert (found.finding, found.same_texts) == ("other", True)
    shuffled = compare(model(1), (model(1) @ turn)[::-1])
    assert (shuffled.finding, shuffled.same_texts) == ("other", False)


@given(st.integers(0, 6))
def test_few_rows_and_none_are_no_error(rows: int) -> None:
    found = compare(model(1, rows), model(1, rows))
    assert found.rows == rows
    assert (found.finding == "too_few") == (rows < 5)


def test_vectors_without_a_direction_are_similar_to_nothing() -> None:
    found = compare(np.zeros((8, 3), np.float32), np.zeros((8, 3), np.float32))
    assert (found.finding, found.agreement) == ("other", 0)


def test_normalized_and_other_lengths_are_told() -> None:
    lengths = np.random.default_rng(1).uniform(2, 9, (ROWS, 1)).astype(np.float32)
    assert compare(model(1) * lengths, model(1)).scale == "stored_longer_or_shorter"
    assert compare(model(1), model(1) * lengths).scale == "stored_normalized"
    assert compare(model(1) * lengths, model(1) * lengths).scale == "same"
    half = model(1).astype(np.float16).astype(np.float32)
    assert (compare(half, model(1)).scale, compare(half, model(1)).finding) == ("same", "same")


def test_fields_that_may_be_prose() -> None:
    payloads = [
        {
            "title": f"The title of number {n}",
            "text": {"body": f"A longer text, which is the body of document number {n}", "n": n},
            "category": "Audio",
            "url": f"https://example.com/{n}",
            "id": f"{n:032x}",
            "sku": f"AB-{n}",
            "a.b": "keys with dots have no path",
            "tags": ["one", "two"],
            "rare": "seldom" if n == 0 else None,
            "": "nameless",
        }
        for n in range(12)
    ]
    assert prose_fields(payloads) == ["text.body", "title"]
    assert prose_fields([]) == prose_fields(["text", None, 3]) == []
