"""`wordllama_256`: static word vectors, averaged: no network runs, so a text takes a fraction of a millisecond.

Reads the weights and the tokenizer of the package `wordllama` and none of its code, which looks for the tokenizer in a
folder that its wheel does not have, then on the network, and sets up the log of the whole process.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import InferenceUnavailable
from app.inference.base import Answer, Service, ServiceInfo, Task, Vectors
from app.inference.thread import ModelThread
from app.settings import Settings

PACKAGES = ("wordllama", "safetensors", "tokenizers")
WEIGHTS = "weights/l2_supercat_256.safetensors"
TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
# A text without words has no mean. This one stands for it: a blank, which the tokenizer writes as a word.
NOTHING = "\u2581"


def services(settings: Settings) -> list[Service]:  # noqa: ARG001 - nothing to set
    return [WordLlama()]


class WordLlama:
    """The vectors of the package's own `embed(texts, norm=True)`, so that those a caller made with it fit."""

    info = ServiceInfo(
        name="wordllama_256",
        provider="local",
        model="WordLlama l2_supercat 256",
        dimension=256,
        modalities=("text",),
        normalized=True,
        description="English; words only, not their order; minds case. Very fast, finds less. Runs on this server.",
        licence="MIT",
        fingerprint="0.4.0",
    )

    def __init__(self) -> None:
        self._loaded: tuple[Any, Vectors] | None = None
        self._thread = ModelThread("wordllama")

    def unavailable(self) -> str | None:
        if self._loaded is not None:
            return None
        missing = [name for name in PACKAGES if find_spec(name) is None]
        return f"{', '.join(missing)} not installed: pip install 'pgretrieve[local]'." if missing else None

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:  # noqa: ARG002 - one embedding for both
        return Answer(await self._thread.run(self._run, texts))

    async def count_tokens(self, texts: Sequence[str]) -> int:
        return await self._thread.run(self._count, texts)

    async def close(self) -> None:
        await self._thread.close()
        self._loaded = None

    # Below: in the model's thread.

    def _run(self, texts: Sequence[str]) -> Vectors:
        tokenizer, words = self._load()
        encoded = tokenizer.encode_batch_fast([text or NOTHING for text in texts], add_special_tokens=False)
        # Row by row: a text has the same bits alone and in any batch, and a long one pads no other.
        sums = np.stack([words[encoding.ids].sum(axis=0) for encoding in encoded])
        vectors: Vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return vectors

    def _count(self, texts: Sequence[str]) -> int:
        tokenizer, _ = self._load()
        return sum(len(encoded.ids) for encoded in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))

    def _load(self) -> tuple[Any, Vectors]:
        if self._loaded is None:
            if reason := self.unavailable():
                raise InferenceUnavailable(reason, service=self.info.name)
            from safetensors.numpy import load_file
            from tokenizers import Tokenizer

            spec = find_spec("wordllama")
            assert spec is not None and spec.origin is not None, "just found"
            folder = Path(spec.origin).parent
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
            tokenizer.no_padding()
            tokenizer.no_truncation()
            (words,) = load_file(folder / WEIGHTS).values()
            self._loaded = tokenizer, words.astype(np.float32)
        return self._loaded
