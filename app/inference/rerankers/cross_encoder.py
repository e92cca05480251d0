"""Cross-encoders in ONNX on the CPU: a network that reads query and text together."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from app.errors import InferenceUnavailable
from app.inference.base import Vectors
from app.inference.providers.onnx import Folder, Network, runs
from app.inference.thread import ModelThread
from app.settings import Settings


class OnnxOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="onnx", tag_field="kind"):
    """A cross-encoder: a folder with `model.onnx` and `tokenizer.json` under `PGRETRIEVE_MODEL_DIR`."""

    path: str
    max_tokens: Annotated[int, msgspec.Meta(ge=8, le=8192)] = 512


class CrossEncoder:
    """A network that reads query and text together. Its score is a probability: of one logit, or of the last of two."""

    remote = False

    def __init__(self, name: str, options: OnnxOptions, settings: Settings) -> None:
        self._name = name
        self._folder = Folder(settings.model_dir, options.path)
        self._max_tokens = options.max_tokens
        self._threads = settings.inference_threads
        self._loaded: tuple[Any, Network] | None = None
        self._thread = ModelThread(name)

    async def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        pairs = await self._thread.run(self._tokens, query, texts)
        scores = np.empty(len(texts), np.float32)
        for rows in runs([len(pair.ids) for pair in pairs]):
            scores[rows] = await self._thread.run(self._run, [pairs[row] for row in rows])
        return list(scores)

    async def close(self) -> None:
        await self._thread.close()
        self._loaded = None

    # Below: in the model's thread.

    def _load(self) -> tuple[Any, Network]:
        if self._loaded is None:
            if reason := self._folder.unavailable():
                raise InferenceUnavailable(f"{self._name} cannot be used on this server. {reason}", service=self._name)
            try:
                from tokenizers import Tokenizer

                tokenizer = Tokenizer.from_str(self._folder.tokenizer().decode())
                tokenizer.enable_truncation(self._max_tokens)
                tokenizer.no_padding()
                self._loaded = tokenizer, Network(self._folder.network(), self._threads)
            except Exception as error:  # the libraries' own classes, of which neither tells what to do
                message = f"Its files are not a tokenizer and a network that can be loaded ({type(error).__name__})."
                raise InferenceUnavailable(f"{self._name}: {message}", service=self._name) from error
        return self._loaded

    def _tokens(self, query: str, texts: Sequence[str]) -> list[Any]:
        return list(self._load()[0].encode_batch([(query, text) for text in texts]))

    def _run(self, pairs: Sequence[Any]) -> Vectors:
        logits, _ = self._load()[1].run([pair.ids for pair in pairs], [pair.type_ids for pair in pairs])
        logits = logits.reshape(len(pairs), -1).astype(np.float32)
        if logits.shape[1] not in (1, 2):
            message = f"{self._name}: the network's first output has {logits.shape[1]} numbers a pair; expected 1 or 2."
            raise InferenceUnavailable(message, code="inference_bad_answer", service=self._name)
        margin = logits[:, -1] - (logits[:, 0] if logits.shape[1] == 2 else 0)
        scores: Vectors = 1 / (1 + np.exp(-np.clip(margin, -60, 60)))
        return scores
