"""A lexical query's text, taken apart: plain words, "phrases" in quotes, prefixes (`word*`). No text is an error."""

import re
from dataclasses import dataclass

PHRASE = re.compile(r'"([^"]*)"')
PREFIX = re.compile(r"\b(\w+)\*")
# Characters that a word has on average at most; what is longer is cut, so that no word is a whole book.
WORD = 64
MOST_WORDS = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """`words`: all words that count, those of phrases too; `phrases` must stand in a document as they are."""

    words: str
    phrases: list[str]
    prefixes: list[str]


def parse(text: object, most: int) -> Asked:
    """The first `most` words of a query. Raises `ValueError` where it is no text.

    What PostgreSQL cannot take, U+0000 and lone surrogates, separates words.
    """
    if not isinstance(text, str):
        raise ValueError("a lexical query is a text")
    clean = text[: most * WORD].replace("\0", " ").encode("utf-8", "replace").decode()
    phrases = [phrase for found in PHRASE.findall(clean) if (phrase := " ".join(found.split()[:most]))]
    prefixes = PREFIX.findall(PHRASE.sub(" ", clean))
    words = PREFIX.sub(" ", PHRASE.sub(lambda found: f" {found[1]} ".replace("*", " "), clean))
    return Asked(" ".join(words.split()[:most]), phrases[:most], list(dict.fromkeys(prefixes))[:most])
