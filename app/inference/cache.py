"""Vectors that were made before, in this process: the newest that fit into so many bytes."""

import hashlib
from collections import OrderedDict
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.inference.base import ServiceInfo, Task

# Beside its numbers: the key, the array's head, the dictionary's entry.
OVERHEAD_BYTES = 400


class Key(NamedTuple):
    """What a vector was made from. `model` names the model and the fingerprint of the service's settings."""

    service: str
    model: str
    task: Task | Literal["image"]
    input_hash: bytes


def key_of(info: ServiceInfo, task: Task, given: str | bytes) -> Key:
    """Of a text, or of an image, which is embedded in one way whatever it is for."""
    model = model_of(info)
    if isinstance(given, bytes):
        return Key(info.name, model, "image", hashlib.sha256(given).digest())
    return Key(info.name, model, task, hashlib.sha256(given.encode()).digest())


def model_of(info: ServiceInfo) -> str:
    """What a service's vectors are kept under: its model, and what else decides what it makes."""
    return f"{info.model} {info.fingerprint}".rstrip()


class VectorCache:
    """Forgets what was used longest ago. A size of 0 keeps nothing."""

    def __init__(self, megabytes: int) -> None:
        self._size = megabytes * 2**20
        self._used = 0
        self._since_trim = 0
        self._kept: OrderedDict[Key, NDArray[np.float32]] = OrderedDict()

    def get(self, key: Key) -> NDArray[np.float32] | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Key, vector: NDArray[np.float32]) -> None:
        needed = vector.nbytes + OVERHEAD_BYTES
        if key in self._kept or needed > self._size:
            return
        kept = vector.copy()  # a row would keep its whole batch alive
        kept.setflags(write=False)
        self._kept[key] = kept
        self._used += needed
        while self._used > self._size:
            _, oldest = self._kept.popitem(last=False)
            self._used -= oldest.nbytes + OVERHEAD_BYTES

    def trim_is_due(self, added: int, rows: int) -> bool:
        """Whether so many more rows in the table of vectors are a reason to look for the oldest: a hundredth are."""
        self._since_trim += added
        if self._since_trim * 100 < rows:
            return False
        self._since_trim = 0
        return True
