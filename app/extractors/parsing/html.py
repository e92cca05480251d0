"""HTML as text: what a reader of the page reads. libxml2 tells events and builds no tree, so depth costs nothing."""

from collections.abc import Mapping

from lxml import etree

from app.errors import ExtractionFailed
from app.extractors.base import Blob, Limits
from app.extractors.parsing.encoding import decoded
from app.extractors.parsing.parsed import Code, Heading, Parsed, Writer

# Not read: what is no text, and what surrounds the text on every page of a site.
SKIPPED = {
    *("head", "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "audio", "video"),
    *("nav", "aside", "footer", "menu", "button", "select", "datalist", "dialog"),
}
LEVELS = {f"h{n}": n for n in range(1, 7)}
PARAGRAPHS = {
    *("address", "article", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt", "fieldset", "figure"),
    *("figcaption", "form", "header", "hr", "html", "legend", "main", "ol", "p", "pre", "section", "summary", "table"),
    *("ul", *LEVELS),
}
LINES = {"br", "li", "tr"}
CELLS = {"td", "th"}
PIECE = 65_536


def parse(blob: Blob, limits: Limits) -> Parsed:
    reader = Reader(Writer(limits))
    parser = etree.HTMLParser(target=reader, encoding="utf-8")
    content = decoded(blob, html=True).encode()
    try:
        for start in range(0, len(content), PIECE):
            parser.feed(content[start : start + PIECE])
        parser.close()
    except etree.ParseError as error:
        raise ExtractionFailed(f"The HTML cannot be read: {error}.", code="unreadable_file") from error
    return reader.parsed()


class Reader:
    """Takes the parser's events. Blank space is as a browser shows it: collapsed, but for `pre`."""

    def __init__(self, writer: Writer) -> None:
        self._to = writer
        self._skipping: list[str] = []  # a skipped element, and those of its name within it
        self._pre = 0
        self._gap = ""  # what stands between what was written and what comes
        self._heading: tuple[int, list[str]] | None = None
        self._code: tuple[int, str | None] | None = None
        self._main: list[int] = []  # where <main> begins and ends

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if self._skipping:
            self._skipping += [tag] if tag == self._skipping[0] else []
            return
        if tag in SKIPPED or "hidden" in attributes:
            self._skipping = [tag]
            return
        self._separate(tag)
        if tag in LEVELS:
            self._heading = (self._next, [])
        elif tag == "pre":
            self._pre += 1
            self._code = self._code or (self._next, None)
        elif tag == "code" and self._code:
            names = [name for name in attributes.get("class", "").split() if name.startswith("language-")]
            self._code = (self._code[0], names[0].removeprefix("language-") if names else self._code[1])
        elif tag == "main" and not self._main:
            self._main = [self._next]

    def end(self, tag: str) -> None:
        if self._skipping:
            if tag == self._skipping[0]:
                self._skipping.pop()
            return
        if tag in LEVELS and self._heading:
            start, parts = self._heading
            self._to.heading(start, LEVELS[tag], "".join(parts))
            self._heading = None
        elif tag == "pre" and self._pre:
            self._pre -= 1
            if not self._pre and self._code and self._to.length > self._code[0]:
                self._to.code.append(Code(self._code[0], self._to.length, self._code[1]))
            self._code = self._code if self._pre else None
        elif tag == "main" and len(self._main) == 1:
            self._main.append(self._to.length)
        if tag not in LINES:
            self._separate(tag)

    def data(self, text: str) -> None:
        if self._skipping or not text:
            return
        shown = text if self._pre else " ".join(text.split())
        if shown:
            if text[0].isspace() and not self._pre:
                self._widen(" ")
            self._to.write((self._gap if self._to.length else "") + shown)
            self._gap = ""
        if self._heading:
            self._heading[1].append(text)
        if text[-1].isspace() and not self._pre:
            self._widen(" ")

    def comment(self, _text: str) -> None:
        """Nobody reads it."""

    def close(self) -> None:
        """Everything was told."""

    def parsed(self) -> Parsed:
        """What was read; of a page with a <main> that says something, this alone."""
        whole = self._to.parsed()
        start, end = (*self._main, len(whole.text))[:2] if self._main else (0, 0)
        if not whole.text[start:end].strip():
            return whole
        headings = tuple(Heading(h.start - start, h.level, h.title) for h in whole.headings if start <= h.start < end)
        code = tuple(Code(c.start - start, c.end - start, c.language) for c in whole.code if start <= c.start < end)
        return Parsed(whole.text[start:end], headings=headings, code=code)

    @property
    def _next(self) -> int:
        return self._to.length + (len(self._gap) if self._to.length else 0)

    def _separate(self, tag: str) -> None:
        if tag in PARAGRAPHS:
            self._widen("\n\n")
        elif tag in LINES:
            self._widen("\n")
        elif tag in CELLS:
            self._widen("\t")

    def _widen(self, gap: str) -> None:
        """The widest of the gaps that meet counts."""
        order = ("", " ", "\t", "\n", "\n\n")
        self._gap = max(self._gap, gap, key=order.index)
