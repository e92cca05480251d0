"""Counting tokens as a model does, and cutting a text to so many. Vocabularies come with packages: nothing is loaded
from the network."""

import asyncio
from functools import cache
from importlib.util import find_spec
from typing import Protocol

from app.errors import InvalidRequest, Problem
from app.inference.services.minilm import TOKENIZER
from app.retrieval.host import TOKENIZERS


class Tokenizer(Protocol):
    def count(self, text: str) -> int: ...

    def cut(self, text: str, most: int) -> str:
        """The beginning of the text that has at most so many tokens."""
        ...


class BytePairs:
    """OpenAI's encodings, which `bpe-openai` carries. Its time is linear in the text, whatever that is."""

    def __init__(self, name: str) -> None:
        import bpe_openai

        self._encoding = bpe_openai.get_encoding(name)

    def count(self, text: str) -> int:
        return len(self._encoding.encode_ordinary(text))

    def cut(self, text: str, most: int) -> str:
        tokens, kept = self._encoding.encode_ordinary(text), most
        while len(tokens) > most:
            # A character may be divided, and what is left of it goes; what remains may be other tokens, even more.
            head: bytes = self._encoding.decode_bytes(tokens[:kept])
            text, kept = head.decode(errors="ignore"), kept - 1
            tokens = self._encoding.encode_ordinary(text)
        return text


class WordPieces:
    """MiniLM's: its tokens know where in the text they stand."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer as Loaded

        self._tokenizer = Loaded.from_str(TOKENIZER.read_text(encoding="utf-8"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def cut(self, text: str, most: int) -> str:
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return text if len(offsets) <= most else text[: offsets[most][0]].rstrip()


@cache
def _tokenizer(name: str) -> Tokenizer:
    if name == "minilm_l6_v2":
        return WordPieces()
    if name not in TOKENIZERS or find_spec("bpe_openai") is None:
        message = f"No tokenizer {name!r} on this server. For cl100k_base and o200k_base: pip install bpe-openai."
        raise InvalidRequest([Problem(("tokenizer",), "unknown_tokenizer", message)])
    return BytePairs(name)


async def cut(name: str, text: str, most: int | None = None) -> tuple[str, int]:
    """The text, or the beginning of it that has at most `most` tokens, and how many it has. Beside the event loop."""

    def work() -> tuple[str, int]:
        tokenizer = _tokenizer(name)
        kept = text if most is None else tokenizer.cut(text, most)
        return kept, tokenizer.count(kept)

    return await asyncio.to_thread(work)
