"""Rerankers by name: the one that is built in, and those of `PGRETRIEVE_RERANKERS`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from app.errors import InferenceUnavailable, InvalidRequest, Problem
from app.inference.base import Service
from app.inference.calling import answered
from app.inference.endpoint import bad_url
from app.inference.files import escapes
from app.inference.gate import Gate
from app.inference.providers.onnx import OnnxText
from app.inference.references import bad_reference
from app.inference.rerankers.cross_encoder import CrossEncoder, OnnxOptions
from app.inference.rerankers.late_interaction import LateInteraction
from app.inference.rerankers.remote import CohereOptions, Remote, TeiOptions
from app.settings import Settings

DEFAULT: Final = "late_interaction"
Options = OnnxOptions | TeiOptions | CohereOptions


class Reranker(Protocol):
    remote: bool

    async def scores(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """One number for each text, higher where it fits better. Raises `InferenceUnavailable`, `PassingFailure`."""
        ...

    async def close(self) -> None: ...


class Rerankers:
    """Those of this process. A definition that cannot be right is a `ValueError` at the start."""

    def __init__(self, settings: Settings, services: Iterable[Service]) -> None:
        self._settings = settings
        minilm = next((service for service in services if service.info.name == "minilm_l6_v2"), None)
        found: dict[str, Reranker] = {DEFAULT: LateInteraction(minilm)} if isinstance(minilm, OnnxText) else {}
        for name, given in settings.rerankers.items():
            found[name] = _build(name, given, settings)
        self._found = found
        limits = settings.inference_concurrency, settings.inference_requests_per_minute
        self._gates = {name: Gate(name, *limits) for name, reranker in found.items() if reranker.remote}

    def names(self) -> list[str]:
        return sorted(self._found)

    async def scores(self, name: str, query: str, texts: Sequence[str], limit_s: float) -> list[float]:
        """A score for each text within so many seconds. Raises `InvalidRequest` (`unknown_reranker`) and
        `InferenceUnavailable`."""
        reranker = self._found.get(name)
        if reranker is None:
            message = (
                f"No reranker {name!r} on this server, which has: {', '.join(self.names()) or 'none'}. Name one of "
                "them in inference_name, or make one of that name known in PGRETRIEVE_RERANKERS."
            )
            raise InvalidRequest([Problem(("body", "stages"), "unknown_reranker", message)])

        async def once() -> list[float]:
            scores = [float(score) for score in await reranker.scores(query, texts)]
            if len(scores) != len(texts) or not np.isfinite(scores).all():
                message = f"{name} gave {len(scores)} scores for {len(texts)} texts; expected one finite number each."
                raise InferenceUnavailable(message, code="inference_bad_answer", service=name)
            return scores

        settings, own = self._settings, self._settings.inference_timeout_s
        setting = "PGRETRIEVE_INFERENCE_TIMEOUT_S" if own <= limit_s else "the time that was left"
        gate = self._gates.get(name)
        return await answered(name, once, gate, min(own, limit_s), settings.inference_retries, setting)

    async def close(self) -> None:
        for reranker in self._found.values():
            await reranker.close()


def _build(name: str, given: Mapping[str, Any], settings: Settings) -> Reranker:
    try:
        options: Options = msgspec.convert(given, Options)
    except msgspec.ValidationError as error:
        raise ValueError(f"PGRETRIEVE_RERANKERS: {name}: {error}") from None
    if isinstance(options, OnnxOptions):
        reason = escapes(settings.model_dir, options.path)
    else:
        reference = options.api_key_ref
        reason = bad_url(options.base_url) or (bad_reference(reference, settings) if reference else None)
    if reason:
        raise ValueError(f"PGRETRIEVE_RERANKERS: {name}: {reason}")
    return (
        CrossEncoder(name, options, settings) if isinstance(options, OnnxOptions) else Remote(name, options, settings)
    )
