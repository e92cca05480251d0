"""Real vectors: the 20,500 most frequent words of GloVe 6B, 50 dimensions; `LICENSE.md` says where they come from."""

import lzma
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
HELD_OUT_EACH = 41  # 20,500 / 41: every 41st word is a query, 500 of them, and the other 20,000 are stored

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Glove:
    """Words with their vectors to store, and vectors of other words to query with."""

    words: list[str]
    stored: Vectors
    queries: Vectors


def load() -> Glove:
    """All of them. They are rounded to float16 in the file; what is answered is exact in float32."""
    vectors: Vectors = np.load(BytesIO(lzma.decompress((HERE / "glove.npy.xz").read_bytes()))).astype(np.float32)
    words = lzma.decompress((HERE / "glove.txt.xz").read_bytes()).decode().split("\n")
    held_out = np.arange(len(words)) % HELD_OUT_EACH == 0
    kept = [word for word, out in zip(words, held_out, strict=True) if not out]
    return Glove(kept, vectors[~held_out], vectors[held_out])
