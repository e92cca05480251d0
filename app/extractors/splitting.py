"""Texts cut into chunks. Units (words, sentences, …) are found one after the other; a chunk is a window of them.

Every rule keeps this: chunks come in order, each is text without blank space at its ends, none lies within the one
before, all that is not blank is in one of them, and the same text is always cut alike.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Literal

import msgspec
import regex
import sentencex

from app.extractors.parsing.parsed import Parsed

SplitBy = Literal["none", "characters", "words", "sentences", "paragraphs", "pages", "markdown"]
Places = tuple[int, int]

# Chinese and Japanese have no blanks between words: each of their characters counts. What runs on for 100 characters is
# no word (base64, a hash, Thai), and is cut there, between characters as readers see them (\X).
LONGEST_WORD = 100
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}]"
WORD = regex.compile(
    rf"[!-~]{{1,{LONGEST_WORD}}}+(?![^\x00-\x7f])"  # ASCII, for which the rest would take six times as long
    rf"|(?={UNSPACED})\X"
    rf"|(?:(?!\s|{UNSPACED})\X){{1,{LONGEST_WORD}}}"
)
PARAGRAPH_END = regex.compile(r"\n[^\S\n]*\n\s*")
# In Markdown, items of a list may be parted, too: a list is one paragraph, however long.
PART_END = regex.compile(rf"{PARAGRAPH_END.pattern}|\n(?=[^\S\n]*(?:[-*+]|\d{{1,9}}[.)])[^\S\n])")
CHARACTER = regex.compile(r"\X")
# How far back a character as readers see it may begin: longer ones (piled up accents) are cut.
LONGEST_CHARACTER = 32


class Span(msgspec.Struct, frozen=True):
    """A chunk's place in the text; code is told apart where the text is split as Markdown."""

    start: int
    end: int
    kind: Literal["section", "code"] | None = None
    language: str | None = None


def split(parsed: Parsed, by: SplitBy, size: int, overlap: int, language: str) -> Iterator[Span]:
    """The chunks: `size` units each, of which `overlap`, fewer than `size`, are those that the one before ends with."""
    text = parsed.text
    if by == "markdown":
        yield from _sections(parsed, size)
        return
    if by == "characters":
        found = _characters(text, size, overlap)
    elif by == "none":
        found = iter([(0, len(text))])
    else:
        found = _windows(UNITS[by](parsed, language), size, overlap)
    told = 0
    for start, end in found:
        span = _trimmed(text, start, end)
        if span and span[1] > told:  # else it is within the one before, but for blank space
            told = span[1]
            yield Span(*span)


def _windows(units: Iterable[Places], size: int, overlap: int) -> Iterator[Places]:
    held: deque[Places] = deque()
    fresh = 0  # units in it that are in no chunk yet
    for unit in units:
        held.append(unit)
        fresh += 1
        if len(held) == size:
            yield held[0][0], held[-1][1]
            fresh = 0
            for _ in range(size - overlap):
                held.popleft()
    if fresh:
        yield held[0][0], held[-1][1]


def _characters(text: str, size: int, overlap: int) -> Iterator[Places]:
    start = end = 0
    while end < len(text):
        end = _boundary(text, start + size, start)
        yield start, end
        start = max(start + 1, _boundary(text, end - overlap, start)) if end < len(text) else end


def _boundary(text: str, place: int, after: int) -> int:
    """The last place up to this one where a character as readers see it ends; the place itself where none is near."""
    if place >= len(text) or text[place - 1 : place + 1].isascii():
        return min(place, len(text))  # between two ASCII characters is one always, as line ends are \n
    near = max(after, place - LONGEST_CHARACTER)
    while near > after and not text[near - 1 : near + 1].isascii() and place - near < 2 * LONGEST_CHARACTER:
        near -= 1
    before = near
    for match in CHARACTER.finditer(text, near, min(len(text), place + LONGEST_CHARACTER)):
        if match.end() > place:
            break
        before = match.end()
    return before if before > after and place - before < LONGEST_CHARACTER else place


def _words(parsed: Parsed, _language: str) -> Iterator[Places]:
    return (match.span() for match in WORD.finditer(parsed.text))


def _paragraphs(parsed: Parsed, _language: str = "") -> Iterator[Places]:
    return _between(parsed.text, (match.span() for match in PARAGRAPH_END.finditer(parsed.text)))


def _sentences(parsed: Parsed, language: str) -> Iterator[Places]:
    """Within paragraphs, so that a heading without a full stop does not run into what follows."""
    for start, end in _paragraphs(parsed):
        place = start
        for sentence in sentencex.segment(language, parsed.text[start:end]):
            if span := _trimmed(parsed.text, place, place + len(sentence)):
                yield span
            place += len(sentence)


def _pages(parsed: Parsed, _language: str) -> Iterator[Places]:
    """Also blank ones, so that a chunk of pages is of pages that follow each other."""
    return pairwise([*(parsed.pages or (0,)), len(parsed.text)])


UNITS: dict[str, Callable[[Parsed, str], Iterator[Places]]] = {
    "words": _words,
    "sentences": _sentences,
    "paragraphs": _paragraphs,
    "pages": _pages,
}


def _sections(parsed: Parsed, size: int) -> Iterator[Span]:
    """A chunk for each section under a heading, cut between paragraphs if it is long, and one for each code block."""
    code = {block.start: block for block in parsed.code}
    cuts = {0, len(parsed.text), *(h.start for h in parsed.headings), *code, *(block.end for block in parsed.code)}
    for start, end in pairwise(sorted(cuts)):
        block = code.get(start)
        pieces = [(start, end)] if block else _packed(parsed.text, start, end, size)
        for piece in pieces:
            if span := _trimmed(parsed.text, *piece):
                yield Span(*span, "code" if block else "section", block.language if block else None)


def _packed(text: str, start: int, end: int, size: int) -> Iterator[Places]:
    """As many paragraphs, or items of lists, as have at most `size` words together; a longer one is by itself."""
    first, last, words = start, start, 0
    for begin, finish in _between(text[start:end], (m.span() for m in PART_END.finditer(text, start, end)), start):
        count = sum(1 for _ in WORD.finditer(text, begin, finish))
        if words and words + count > size:
            yield first, last
            first, words = begin, 0
        last, words = finish, words + count
    yield first, max(last, end)


def _between(text: str, gaps: Iterable[Places], offset: int = 0) -> Iterator[Places]:
    """What lies between the gaps and is not blank."""
    start = offset
    for gap_start, gap_end in gaps:
        if text[start - offset : gap_start - offset].strip():
            yield start, gap_start
        start = gap_end
    if text[start - offset :].strip():
        yield start, offset + len(text)


def _trimmed(text: str, start: int, end: int) -> Places | None:
    """The place without the blank space at its ends; None where nothing is left."""
    inner = text[start:end]
    begun = start + len(inner) - len(inner.lstrip())
    return (begun, begun + len(inner.strip())) if begun < end else None
