"""`late_interaction`: MaxSim over the token vectors of MiniLM, which is there anyway: no further model."""

import asyncio
from collections.abc import Sequence
from typing import Final

import numpy as np

from app.inference.base import Vectors
from app.inference.providers.onnx import OnnxText

# BERT's vocabulary has its words from the most frequent one on, after brackets, letters and signs. By Zipf's law the
# logarithm of a word's rank is its inverse frequency, so that no statistics of the documents are needed.
FIRST_WORD: Final = 1996
SIGN_WEIGHT: Final = 0.3


class LateInteraction:
    """MiniLM's own token vectors: each token of the query finds its nearest in the text (MaxSim), rare ones count
    more, and the similarity of the whole is added: (cosine + weighted mean of MaxSim) / 2, from -1 to 1.
    """

    remote = False

    def __init__(self, model: OnnxText) -> None:
        self._model = model

    async def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        (ids, asked), *found = await self._model.token_vectors([query, *texts])
        weights = rarity(ids)
        # In a thread: long texts take some milliseconds each.
        return await asyncio.to_thread(lambda: [late_interaction(asked, vectors, weights) for _, vectors in found])

    async def close(self) -> None:
        """The model is its service's, which closes it."""


def rarity(ids: Sequence[int]) -> Vectors:
    """A weight for each token of BERT's vocabulary, without the marks at both ends: shape (tokens - 2,)."""
    ranks = np.maximum(np.array(ids[1:-1], np.float32) - FIRST_WORD + 1, 0)
    return np.where(ranks > 0, np.log(ranks + 1), SIGN_WEIGHT).astype(np.float32)


def late_interaction(query: Vectors, text: Vectors, weights: Vectors) -> float:
    """Token vectors of both, marks at their ends included; `weights` are for the query's without them."""
    whole = _unit(query.sum(axis=0)) @ _unit(text.sum(axis=0))
    asked, found = _unit(query[1:-1]), _unit(text[1:-1])
    if not len(asked) or not len(found):
        return float(whole / 2)
    nearest = (asked @ found.T).max(axis=1)
    return float((whole + (weights * nearest).sum() / weights.sum()) / 2)


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit
