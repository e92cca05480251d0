"""Splitters: what holds for every text, by Hypothesis, and what each of them is for, by example."""

from itertools import pairwise

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from app.extractors.base import Blob
from app.extractors.parsing.parsed import Parsed
from app.extractors.splitting import LONGEST_CHARACTER, UNITS, Span, split
from tests.extractors.extracting import texts

PIECES = st.sampled_from(
    [
        *(
            "a",
            "word ",
            "Dr. Who. ",
            "End! ",
            "\n",
            "\n\n",
            " \n \n",
            "\f",
            "東京",
            "。",
            "e\u0301",
            "👩\u200d👩\u200d👧",
        ),
        *("🇩🇪", "\u0300", "\u200d", "\u3000", "x" * 120),
    ]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=60).map("".join))
BY_UNITS = sorted(UNITS)


def parsed(text: str) -> Parsed:
    starts = [0] + [n + 1 for n, char in enumerate(text) if char == "\f"]
    return Parsed(text, tuple(start for start in starts if start < len(text)))


def cut(text: str, by: str, size: int, overlap: int = 0) -> list[Span]:
    return list(split(parsed(text), by, size, overlap, "en"))  # type: ignore[arg-type]


@given(TEXTS, st.sampled_from(["none", "characters", "markdown", *BY_UNITS]), st.integers(1, 20), st.data())
def test_chunks_cover_the_text_in_order_and_none_is_blank(text: str, by: str, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    spans = cut(text, by, size, overlap)
    assert spans == cut(text, by, size, overlap)
    covered = {place for span in spans for place in range(span.start, span.end)}
    assert {n for n, char in enumerate(text) if not char.isspace()} <= covered
    for span in spans:
        chunk = text[span.start : span.end]
        assert chunk
        assert chunk == chunk.strip()
    for one, next_one in pairwise(spans):
        assert one.start <= next_one.start
        assert one.end < next_one.end


@given(TEXTS, st.sampled_from(BY_UNITS), st.integers(1, 8), st.data())
def test_sizes_and_overlaps_count_in_units(text: str, by: str, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    units = list(UNITS[by](parsed(text), "en"))
    windows = [units[n : n + size] for n in range(0, max(len(units) - overlap, 1), size - overlap)]
    expected: list[tuple[int, str]] = []
    for window in windows:
        chunk = text[window[0][0] : window[-1][1]] if window else ""
        end = window[0][0] + len(chunk.rstrip()) if window else 0
        if chunk.strip() and end > (expected[-1][0] if expected else 0):
            expected.append((end, chunk.strip()))
    assert [(span.end, text[span.start : span.end]) for span in cut(text, by, size, overlap)] == expected


@given(TEXTS, st.integers(1, 50), st.data())
def test_characters_are_never_more_than_asked_for(text: str, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    assert all(span.end - span.start <= size for span in cut(text, "characters", size, overlap))


@given(
    st.lists(st.sampled_from(["a", "e\u0301", "👩‍👩‍👧", "🇩🇪", "가", "क्षि", "\n"]), min_size=1, max_size=60),
    st.integers(12, 40),
)
def test_characters_as_readers_see_them_stay_whole(pieces: list[str], size: int) -> None:
    text = "".join(pieces)
    ends = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    starts_and_ends = {place for span in cut(text, "characters", size) for place in (span.start, span.end)}
    assert starts_and_ends <= ends


def test_piled_up_accents_are_cut_rather_than_kept_whole() -> None:
    text = "a" + "\u0301" * 10 * LONGEST_CHARACTER
    assert max(span.end - span.start for span in cut(text, "characters", 100)) == 100


def test_overlapping_characters() -> None:
    assert texts(Blob.of("abcdefghij"), split_by="characters", chunk_size=4, chunk_overlap=1) == [
        "abcd",
        "defg",
        "ghij",
    ]


@pytest.mark.parametrize(
    ("by", "size", "text", "chunks"),
    [
        ("words", 2, "one two, three\nfour five", ["one two,", "three\nfour", "five"]),
        ("words", 2, "東京は big", ["東京", "は big"]),
        ("words", 1, "z" * 250, ["z" * 100, "z" * 100, "z" * 50]),
        ("sentences", 1, "Mr. Brown saw 3.5 cats. Did he? “Yes!”", ["Mr. Brown saw 3.5 cats.", "Did he?", "“Yes!”"]),
        ("sentences", 1, "今日は。元気ですか？", ["今日は。", "元気ですか？"]),
        ("sentences", 1, "A title\n\nIts text goes on.", ["A title", "Its text goes on."]),
        ("paragraphs", 2, "one\nstill\n \ntwo\n\n\nthree", ["one\nstill\n \ntwo", "three"]),
        ("pages", 1, "one\f\ftwo\f", ["one", "two"]),
        ("none", 1, "  all of it \n", ["all of it"]),
    ],
)
def test_units(by: str, size: int, text: str, chunks: list[str]) -> None:
    assert texts(Blob.of(text), split_by=by, chunk_size=size) == chunks


def test_long_sections_end_between_paragraphs() -> None:
    text = "# A\n\none two three\n\nfour five\n\n" + "long " * 9 + "\n\n- one\n- two three\n  four five\n- six"
    chunks = texts(Blob.of(text, "text/markdown"), split_by="markdown", chunk_size=7)
    assert chunks == [
        "# A\n\none two three\n\nfour five",
        ("long " * 9).strip(),
        "- one\n- two three\n  four five",
        "- six",
    ]
