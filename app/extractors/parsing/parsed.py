"""What parsers make of a file: one text, and where its pages, headings and code blocks are in it."""

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property

from app.errors import ExtractionFailed
from app.extractors.base import Limits


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading begins a section; it counts from 1, the uppermost."""

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Code:
    """A code block from one place to another, with the language where it is told."""

    start: int
    end: int
    language: str | None = None


@dataclass(frozen=True)
class Parsed:
    """The text and its structure, in the order of their places. `pages` are where pages start; empty: it has none."""

    text: str
    pages: tuple[int, ...] = ()
    headings: tuple[Heading, ...] = ()
    code: tuple[Code, ...] = ()

    def page(self, place: int) -> int | None:
        """The number of the page at this place, from 1."""
        return max(1, bisect_right(self.pages, place)) if self.pages else None

    def path(self, place: int) -> tuple[str, ...]:
        """The titles of the headings above this place, the uppermost first."""
        at = bisect_right(self._starts, place)
        return self._paths[at - 1] if at else ()

    def begins_section(self, place: int) -> bool:
        """Whether a heading stands at this place."""
        at = bisect_right(self._starts, place)
        return at > 0 and self._starts[at - 1] == place

    @cached_property
    def _starts(self) -> list[int]:
        return [heading.start for heading in self.headings]

    @cached_property
    def _paths(self) -> list[tuple[str, ...]]:
        paths: list[tuple[str, ...]] = []
        above: list[Heading] = []
        for heading in self.headings:
            while above and above[-1].level >= heading.level:
                above.pop()
            above.append(heading)
            paths.append(tuple(each.title for each in above))
        return paths


@dataclass(slots=True)
class Writer:
    """Gathers a text from its parts, and fails where it grows beyond the limit."""

    limits: Limits
    parts: list[str] = field(default_factory=list)
    length: int = 0
    pages: list[int] = field(default_factory=list)
    headings: list[Heading] = field(default_factory=list)
    code: list[Code] = field(default_factory=list)

    def write(self, text: str) -> None:
        """Add a part. U+0000, which fonts and broken pages stand for the unknown by, becomes U+FFFD."""
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        self.length += len(text)
        check_length(self.length, self.limits)
        self.parts.append(text)

    def page(self) -> None:
        self.pages.append(self.length)

    def heading(self, start: int, level: int, title: str) -> None:
        if title := " ".join(title.split()):
            self.headings.append(Heading(start, level, title))

    def parsed(self) -> Parsed:
        return Parsed("".join(self.parts), tuple(self.pages), tuple(self.headings), tuple(self.code))


def check_length(length: int, limits: Limits) -> None:
    if length > limits.chars:
        raise ExtractionFailed(
            f"The text is longer than {limits.chars:,} characters (PGRETRIEVE_EXTRACT_MAX_CHARS).",
            code="content_too_long",
        )
