"""Text models in ONNX on the CPU: a tokenizer, a network, pooling. Runs on this server, without torch."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import msgspec
import numpy as np

from app.errors import InferenceUnavailable
from app.inference import definition as definitions
from app.inference.base import Answer, ServiceInfo, Task, Vectors
from app.inference.definition import Definition
from app.inference.files import NotLocated, escapes, locate
from app.inference.thread import ModelThread
from app.settings import Settings

# Padded tokens in one run. Measured on 2 cores, ms a text, with one text / 512 / 2,048 tokens in a run: 4.2 /
# 1.1 / 1.4 for queries, 33 / 28 / 91 for texts of 256 tokens (larger activations outgrow the caches).
RUN_TOKENS = 512
# Texts whose tokens are counted in one turn.
COUNT_TEXTS = 32

Prefix = Annotated[str, msgspec.Meta(max_length=1000)]


class Options(definitions.Options, frozen=True, kw_only=True):
    """A folder with `model.onnx` and `tokenizer.json`, under `PGRETRIEVE_MODEL_DIR`.

    `path` is relative to that folder. `pooling` makes one vector of the tokens' (the network's first output): their
    mean, the first (`cls`) or the last; `normalize` gives it length 1. The prefixes stand before each text, as models
    of E5's kind want them. Of a text the first `max_tokens` tokens are seen.
    """

    path: Annotated[str, msgspec.Meta(max_length=500)]
    pooling: Literal["mean", "cls", "last"] = "mean"
    normalize: bool = True
    query_prefix: Prefix = ""
    document_prefix: Prefix = ""
    max_tokens: Annotated[int, msgspec.Meta(ge=4, le=8192)] = 512


def check(options: Options, settings: Settings) -> Iterable[tuple[str, str]]:
    if reason := escapes(settings.model_dir, options.path):
        yield "path", reason


def build(definition: Definition, options: Options, settings: Settings) -> "OnnxText":
    info = ServiceInfo(
        name=definition.name,
        provider=definition.provider,
        model=definition.model,
        dimension=definition.dimension,
        modalities=("text",),
        normalized=options.normalize,
        description=definition.description,
        licence="that of the model",
        max_batch=16,  # 64 long texts take 4 to 7 s on 2 busy cores; three callers would meet the limit
        stored=True,
        fingerprint=definition.fingerprint,
    )
    return OnnxText(info, Folder(settings.model_dir, options.path), options, settings.inference_threads)


class Source(Protocol):
    """Where tokenizer and network come from. The last two raise `InferenceUnavailable`."""

    def unavailable(self) -> str | None: ...

    def tokenizer(self) -> bytes: ...

    def network(self) -> bytes | Path: ...


class Folder:
    """A folder of the operator's. Where a file was missing, it may be put there without a restart."""

    def __init__(self, model_dir: Path | None, path: str) -> None:
        self._model_dir = model_dir
        self._path = path

    def unavailable(self) -> str | None:
        try:
            for name in ("model.onnx", "tokenizer.json"):
                self._file(name)
        except NotLocated as error:
            return str(error)
        return None

    def tokenizer(self) -> bytes:
        return self._file("tokenizer.json").read_bytes()

    def network(self) -> Path:
        return self._file("model.onnx")

    def _file(self, name: str) -> Path:
        return locate(self._model_dir, f"{self._path}/{name}")


class OnnxText:
    """Bit-identical vectors for a text alone or in any batch: the padding of a row adds exact zeros only.

    `head_chars`: for tokenizers that never join what a space divides, how many characters of a long text are
    mostly enough to fill the window.
    """

    def __init__(
        self, info: ServiceInfo, source: Source, options: Options, threads: int, head_chars: int | None = None
    ) -> None:
        self.info = info
        self._source = source
        self._options = options
        self._threads = threads
        self._head_chars = head_chars
        self._loaded: tuple[Tokens, Network] | None = None
        self._thread = ModelThread(info.name)

    def unavailable(self) -> str | None:
        if self._loaded is not None:
            return None
        missing = [name for name in ("onnxruntime", "tokenizers") if find_spec(name) is None]
        return f"Not installed: pip install {' '.join(missing)}" if missing else self._source.unavailable()

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:
        prefix = {"query": self._options.query_prefix, "document": self._options.document_prefix}.get(task, "")
        tokens = await self._thread.run(self._tokens, [prefix + text for text in texts])
        vectors = np.empty((len(texts), self.info.dimension), np.float32)
        for rows in runs([len(ids) for ids in tokens]):
            vectors[rows] = await self._thread.run(self._run, [tokens[row] for row in rows])
        return Answer(vectors)

    async def count_tokens(self, texts: Sequence[str]) -> int:
        found = 0
        for start in range(0, len(texts), COUNT_TEXTS):
            rows = [self._options.document_prefix + text for text in texts[start : start + COUNT_TEXTS]]
            found += sum(map(len, await self._thread.run(self._tokens, rows)))
        return found

    async def token_vectors(self, texts: Sequence[str]) -> list[tuple[list[int], Vectors]]:
        """The ids of each text's tokens, and a vector for each, shape (tokens, dimension)."""
        tokens = await self._thread.run(self._tokens, texts)
        found: list[tuple[list[int], Vectors]] = [([], np.empty((0, self.info.dimension), np.float32))] * len(texts)
        for rows in runs([len(ids) for ids in tokens]):
            hidden, _ = await self._thread.run(self._hidden, [tokens[row] for row in rows])
            for at, row in enumerate(rows):
                found[row] = tokens[row], hidden[at, : len(tokens[row])].copy()
        return found

    async def close(self) -> None:
        await self._thread.close()
        self._loaded = None

    # Below: in the model's thread.

    def _load(self) -> "tuple[Tokens, Network]":
        """Once: 0.3 s with the imports for a small model, 0.6 s on a busy machine."""
        if self._loaded is None:
            if reason := self.unavailable():
                raise InferenceUnavailable(reason, service=self.info.name)
            tokenizer, network = self._source.tokenizer(), self._source.network()
            try:
                tokens = Tokens(tokenizer, self._options.max_tokens, self._head_chars)
                self._loaded = tokens, Network(network, self._threads)
            except Exception as error:  # the libraries' own classes, of which neither tells what to do
                message = f"Its files are not a tokenizer and a network that can be loaded ({type(error).__name__})."
                raise InferenceUnavailable(message, service=self.info.name) from error
        return self._loaded

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return self._load()[0].tokens(texts)

    def _run(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        vectors = pooled(*self._hidden(tokens), self._options.pooling, mean=not self._options.normalize)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if self._options.normalize else vectors

    def _hidden(self, tokens: Sequence[Sequence[int]]) -> tuple[Vectors, Vectors]:
        hidden, mask = self._load()[1].run(tokens)
        if hidden.ndim != 3 or hidden.shape[2] != self.info.dimension:
            message = (
                f"The network's first output has shape {hidden.shape}; expected one vector of "
                f"{self.info.dimension} numbers for each token."
            )
            raise InferenceUnavailable(message, code="inference_bad_answer", service=self.info.name)
        return hidden, mask


class Tokens:
    """The tokenizer, from the content of its file."""

    def __init__(self, content: bytes, max_tokens: int, head_chars: int | None = None) -> None:
        from tokenizers import Tokenizer

        self._max_tokens = max_tokens
        self._head_chars = head_chars
        self._tokenizer = Tokenizer.from_str(content.decode())
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.no_padding()  # a file may ask for a fixed length; a run pads to the longest of its rows

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, at most `max_tokens`.

        Tokenising 100,000 characters takes 35 ms, more than the model, to keep 256 tokens.
        """
        tokens = self._encode([self._head(text) for text in texts])
        # A head that ends at a space has the text's own first tokens, so one that fills the window is exact.
        short = [i for i, text in enumerate(texts) if self._cut(text) and len(tokens[i]) < self._max_tokens]
        for i, ids in zip(short, self._encode([texts[i] for i in short]), strict=True):
            tokens[i] = ids
        return tokens

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)] if texts else []

    def _cut(self, text: str) -> bool:
        return self._head_chars is not None and len(text) > self._head_chars

    def _head(self, text: str) -> str:
        return text[: self._head_chars].rpartition(" ")[0] if self._cut(text) else text


def session(content: bytes | Path, threads: int) -> Any:
    """A network on the CPU, as `onnxruntime.InferenceSession`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait by spinning save 0.3 ms of a query on idle cores; on cores shared with a busy
    # Postgres they cost 4 of 12 ms, and nearly half of the CPU.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = str(content) if isinstance(content, Path) else content
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Network:
    """The network, from the content of its file, or from the file where that refers to others beside it."""

    def __init__(self, content: bytes | Path, threads: int) -> None:
        self._session = session(content, threads)
        self._inputs = {given.name for given in self._session.get_inputs()}
        self._output = self._session.get_outputs()[0].name

    def run(
        self, tokens: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None
    ) -> tuple[Vectors, Vectors]:
        """The first output, mostly a vector for each token, shape (rows, longest, dimension), and the mask of the
        tokens that are none. `types` says of each token whether it is of the second text of a pair."""
        shape = (len(tokens), max(1, *map(len, tokens)))
        ids, mask, kinds = (np.zeros(shape, np.int64) for _ in range(3))
        for row, its_ids in enumerate(tokens):
            ids[row, : len(its_ids)] = its_ids
            mask[row, : len(its_ids)] = 1
            if types is not None:
                kinds[row, : len(its_ids)] = types[row]
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
        given = {name: value for name, value in inputs.items() if name in self._inputs}
        (hidden,) = self._session.run([self._output], given)
        return hidden.astype(np.float32, copy=False), mask.astype(np.float32)


def pooled(hidden: Vectors, mask: Vectors, pooling: str, *, mean: bool) -> Vectors:
    """One vector a row. With `mean` false a sum serves as the mean: the number of tokens falls out with the length."""
    if pooling == "cls":
        return hidden[:, 0]
    counts = mask.sum(axis=1)
    if pooling == "last":
        last: Vectors = hidden[np.arange(len(hidden)), np.maximum(counts, 1).astype(np.int64) - 1]
        return last
    sums: Vectors = (hidden * mask[:, :, None]).sum(axis=1)
    return sums / np.maximum(counts, 1)[:, None] if mean else sums


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
