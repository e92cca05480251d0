"""The memory of vectors: bounded in bytes, the least used go first; and what tells the origin of one from another."""

from dataclasses import replace

import numpy as np

from app.inference.cache import OVERHEAD_BYTES, VectorCache, key_of
from app.inference.definition import Definition
from tests.fakes import FakeService

INFO = FakeService().info
ROOM = 2**20 // (8 * 4 + OVERHEAD_BYTES)


def vector(n: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.full(8, n, np.float32)


def test_it_keeps_what_fits_and_forgets_what_was_used_longest_ago() -> None:
    cache = VectorCache(1)
    keys = [key_of(INFO, "query", str(n)) for n in range(ROOM + 1)]
    for n, key in enumerate(keys[:-1]):
        cache.put(key, vector(n))
    assert cache.get(keys[0]) is not None  # used now
    cache.put(keys[-1], vector(ROOM))
    assert cache.get(keys[1]) is None
    for n in (0, 2, ROOM):
        kept = cache.get(keys[n])
        assert kept is not None
        assert np.array_equal(kept, vector(n))


def test_of_a_size_of_zero_it_keeps_nothing() -> None:
    cache = VectorCache(0)
    key = key_of(INFO, "query", "a")
    cache.put(key, vector(1))
    assert cache.get(key) is None


def test_a_kept_vector_is_its_own_and_cannot_be_changed() -> None:
    cache = VectorCache(1)
    key, batch = key_of(INFO, "query", "a"), np.ones((2, 8), np.float32)
    cache.put(key, batch[0])
    batch[:] = 7
    kept = cache.get(key)
    assert kept is not None
    assert not kept.flags.writeable
    assert kept.sum() == 8


def test_keys_differ_by_service_model_settings_task_and_text() -> None:
    definition = Definition("fake", "onnx", "fake", 8, {"path": "a"})
    infos = [
        INFO,
        replace(INFO, name="other"),
        replace(INFO, model="other"),
        replace(INFO, fingerprint=definition.fingerprint),
        replace(INFO, fingerprint=replace(definition, settings={"path": "b"}).fingerprint),
    ]
    keys = {key_of(info, "query", "a") for info in infos}
    keys |= {key_of(INFO, "document", "a"), key_of(INFO, "query", "b")}
    assert len(keys) == 7
    assert replace(definition, description="new words").fingerprint == definition.fingerprint


def test_the_table_is_trimmed_after_each_hundredth_of_its_rows() -> None:
    cache = VectorCache(1)
    assert [cache.trim_is_due(1, 300) for _ in range(7)] == [False, False, True, False, False, True, False]
    assert cache.trim_is_due(1, 5)
