"""Markdown, which stays as it was written: its headings and code blocks are found by CommonMark's rules."""

from itertools import accumulate

from markdown_it import MarkdownIt

from app.extractors.base import Blob, Limits
from app.extractors.parsing.parsed import Code, Heading, Parsed
from app.extractors.parsing.plain import read

# Blocks alone: what stands within lines changes nothing, and is where hostile Markdown takes long.
BLOCKS = MarkdownIt("commonmark").disable(["inline", "text_join"], ignoreInvalid=True)


def parse(blob: Blob, limits: Limits) -> Parsed:
    text = read(blob, limits)
    starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    headings, code = [], []
    tokens = BLOCKS.parse(text)
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        if token.map is None or token.level:
            continue
        start, end = starts[token.map[0]], min(starts[token.map[1]], len(text))
        if token.type == "heading_open" and after is not None:
            headings.append(Heading(start, int(token.tag[1:]), " ".join(after.content.split())))
        elif token.type in ("fence", "code_block"):
            code.append(Code(start, end, token.info.split()[0] if token.info.split() else None))
    return Parsed(text, headings=tuple(headings), code=tuple(code))
