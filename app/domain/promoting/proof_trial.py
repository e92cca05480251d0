"""One service tried on drawn rows: which field, read in which way, gives vectors closest to those that are stored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.domain.inference import embedding
from app.domain.promoting.agreement import MIN_ROWS, SAME, SIGNAL, Agreement, compare
from app.domain.promoting.proof_rows import PILOT, Drawn
from app.domain.runtime import Runtime
from app.inference.base import ServiceInfo, Task, Vectors

# Texts between two looks at the clock; remote services are asked for all at once.
STEP = 8
# By this much another way must be better than the simpler one. Two separators differ by 0.005 to 0.02.
BETTER = 0.002
SEPARATORS = (". ", "\n", ", ")
MOST_JOINED = 3
# Fields that are tried beside the one that agrees best.
MOST_PARTNERS = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """What of a payload was embedded: a field, or several joined."""

    fields: tuple[str, ...]
    separator: str = " "
    how: Literal["given", "found"] = "found"

    @property
    def text(self) -> str:
        return self.separator.join(f"{{{field}}}" for field in self.fields) if len(self.fields) > 1 else self.fields[0]


@dataclass(frozen=True, slots=True)
class Reading:
    """A way in which a text may have been embedded; without a name, as the service embeds content."""

    name: str | None
    task: Task
    prefix: str = ""
    lower: bool = False
    reason: str = ""

    def of(self, text: str) -> str:
        return self.prefix + (text.lower() if self.lower else text)


DOCUMENT = Reading(None, "document")
READINGS = (
    Reading(
        "query prefix",
        "query",
        reason="Stored vectors were made as the service makes those of queries, not those of content.",
    ),
    Reading("no prefix", "raw", reason="Stored vectors were made without the prefix that the service sets."),
    Reading(
        'prefix "passage: "',
        "raw",
        "passage: ",
        reason='Stored texts began with "passage: ": a service with that document_prefix fits.',
    ),
    Reading(
        'prefix "query: "',
        "raw",
        "query: ",
        reason='Stored texts began with "query: ": a service with that document_prefix fits.',
    ),
    Reading("lower case", "document", lower=True, reason="Stored vectors were made of texts in lower case."),
)


class Trial:
    """`source` and `reading` are the best so far, also when `run` was ended before its time."""

    def __init__(self, runtime: Runtime, drawn: Drawn, info: ServiceInfo) -> None:
        self._runtime = runtime
        self._drawn = drawn
        self._info = info
        self._made: dict[tuple[Origin, Reading], Vectors] = {}
        how: Literal["given", "found"] = "given" if drawn.given else "found"
        self._sources = [Origin((field,), how=how) for field in drawn.texts]
        self.source = self._sources[0]
        self.reading = DOCUMENT

    async def run(self) -> None:
        """Choose source and reading by a few rows, step by step to what agrees better; then embed all."""
        pilot, before = await self._choose_field(), None
        while pilot is not before and SIGNAL <= pilot.agreement < SAME:
            before, ways = pilot, list(self._ways())
            for source, reading in ways:
                found = await self._try(source, reading, PILOT)
                if found.rows >= MIN_ROWS and found.agreement > pilot.agreement + BETTER:
                    pilot, self.source, self.reading = found, source, reading
                if pilot.agreement >= SAME:
                    break
        await self._try(self.source, self.reading, self._runtime.settings.proof_rows)

    def numbers(self) -> Agreement | None:
        """Of all rows that were embedded; None where there are none."""
        made = self._made.get((self.source, self.reading))
        return None if made is None or not len(made) else self._compared(self.source, made)

    async def _choose_field(self) -> Agreement:
        """By agreement; where no field has any, by which orders pairs of rows as the stored vectors do."""
        tried = [(await self._try(source, DOCUMENT, PILOT), source) for source in self._sources]

        def merit(found: tuple[Agreement, Origin]) -> tuple[bool, float, float]:
            numbers = found[0]
            return numbers.rows >= MIN_ROWS, max(numbers.agreement, SIGNAL), numbers.structure

        tried.sort(key=merit, reverse=True)
        self._sources = [source for numbers, source in tried if numbers.rows >= MIN_ROWS]
        pilot, self.source = tried[0]
        return pilot

    def _ways(self) -> Iterator[tuple[Origin, Reading]]:
        """What differs in one thing from what is best so far: in reading, in the separator, or by one field more."""
        source, reading = self.source, self.reading
        yield from ((source, other) for other in (DOCUMENT, *READINGS))
        if len(source.fields) > 1:
            yield from ((Origin(source.fields, separator), reading) for separator in SEPARATORS)
        if len(source.fields) < MOST_JOINED:
            others = [each.fields[0] for each in self._sources if each.fields[0] not in source.fields]
            for other in others[:MOST_PARTNERS]:
                for fields in ((other, *source.fields), (*source.fields, other)):
                    yield Origin(fields, source.separator), reading

    async def _try(self, source: Origin, reading: Reading, count: int) -> Agreement:
        texts = [reading.of(text) for _, text in self._rows(source)[:count]]
        made = self._made.get((source, reading), np.empty((0, self._info.dimension), np.float32))
        while len(made) < len(texts):
            step = len(texts) if self._info.remote else STEP
            new = await self._embed(texts[len(made) : len(made) + step], reading.task)
            made = self._made[source, reading] = np.concatenate([made, new])
        return self._compared(source, made[: len(texts)])

    async def _embed(self, texts: Sequence[str], task: Task) -> Vectors:
        if task == "raw" and self._info.remote:  # only proofs ask for it: not worth a place in the database
            return await self._runtime.inference.embed(self._info.name, texts, task)
        return (await embedding.embed(self._runtime, self._info.name, texts, task)).vectors

    def _compared(self, source: Origin, made: Vectors) -> Agreement:
        rows = [row for row, _ in self._rows(source)[: len(made)]]
        return compare(self._drawn.vectors[rows], made[:, : self._drawn.config.dimension])

    def _rows(self, source: Origin) -> list[tuple[int, str]]:
        """Rows that have all of the source, with its text, no text twice: equal ones could not find themselves."""
        longest = self._runtime.settings.max_text_chars - len("passage: ")
        found: dict[str, int] = {}
        for row, parts in enumerate(zip(*(self._drawn.texts[field] for field in source.fields), strict=True)):
            if None not in parts:
                found.setdefault(source.separator.join(map(str, parts))[:longest], row)
        return [(row, text) for text, row in found.items()]
