"""Proof that a service made the vectors of an index: stored rows are embedded anew and compared.

Reads in transactions of its own, and none is open while a service is called. Never fails: what cannot be found out in
time is `unknown`, with the reason.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy.exc import SQLAlchemyError

from app.db.engine import transaction
from app.domain.promoting.agreement import MIN_ROWS, Agreement
from app.domain.promoting.proof_rows import Drawn, draw
from app.domain.promoting.proof_trial import Origin, Trial
from app.domain.runtime import Runtime
from app.errors import PgretrieveError
from app.inference.base import ServiceInfo
from app.retrieval.catalog import Catalog, VectorConfig

log = logging.getLogger(__name__)

Verdict = Literal["match", "variant", "mismatch", "unknown"]


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found out. `usable`: queries that the service embeds find what is stored, as far as it is known.

    `variants` say how stored vectors differ from those that the service makes of content; `source`, what was embedded.
    """

    index: str
    inference_service: str
    verdict: Verdict
    usable: bool
    reasons: tuple[str, ...]
    variants: tuple[str, ...] = ()
    source: Origin | None = None
    numbers: Agreement | None = None
    seconds: float = 0.0


async def prove(
    runtime: Runtime,
    catalog: Catalog,
    index: str,
    service: str,
    source_field: str | None = None,
    *,
    deadline: float | None = None,
) -> Proof:
    """Whether `service` made the vectors of `index`, a dense one of the catalog, from the payload's `source_field`.

    Without that the field is looked for. `deadline` is of the loop's clock; by default `proof_timeout_s` from now.
    """
    deadline = deadline or ends(runtime)
    drawn = await draw_rows(runtime, catalog, catalog.by_name[index], source_field, deadline)
    return await judge(runtime, drawn, index, service, deadline)


def ends(runtime: Runtime) -> float:
    """When proofs that begin now end, by the loop's clock."""
    return asyncio.get_running_loop().time() + runtime.settings.proof_timeout_s


async def draw_rows(
    runtime: Runtime, catalog: Catalog, config: VectorConfig, source_field: str | None, deadline: float
) -> Drawn | str:
    """Rows for any number of proofs of one index, or why there are none."""
    try:
        async with asyncio.timeout_at(deadline), transaction(runtime.engine, runtime.settings) as conn:
            drawn = await draw(conn, catalog, config, source_field, runtime.settings)
    except TimeoutError:
        return "Stored rows could not be read in time."
    except (SQLAlchemyError, PgretrieveError) as error:
        log.warning("no rows for a proof of %s: %s", config.name, type(error).__name__)
        return "Stored rows could not be read."
    if not len(drawn.vectors):
        also = "" if source_field is None else f" and a text in the payload field {source_field!r}"
        return f"No document has this vector{also}."
    return drawn if drawn.texts else "No payload field holds texts that these vectors may come from."


async def judge(runtime: Runtime, drawn: Drawn | str, index: str, service: str, deadline: float) -> Proof:
    """What these rows say of this service."""
    began = time.monotonic()
    found = runtime.inference.get(service)
    if found is None:
        return _unknown(index, service, f"There is no inference service {service!r}.")
    if isinstance(drawn, str):
        return _unknown(index, service, drawn)
    info = found.info
    if "text" not in info.modalities:  # images: their sources would be read and embedded in `Trial`
        return _unknown(index, service, f"{service} embeds no texts, and proofs read nothing else yet.")
    if info.dimension < drawn.config.dimension:
        message = f"{service} makes {info.dimension} dimensions, the index has {drawn.config.dimension}."
        return replace(_unknown(index, service, message), verdict="mismatch")
    trial, failed = Trial(runtime, drawn, info), None
    try:
        async with asyncio.timeout_at(deadline):
            await trial.run()
    except TimeoutError:
        failed = "The time was over (PGRETRIEVE_PROOF_TIMEOUT_S) before all rows were embedded."
    except PgretrieveError as error:
        failed = error.message
    except SQLAlchemyError as error:  # of the table that keeps what remote services embedded
        failed = f"Embeddings could not be kept ({type(error).__name__})."
    proof = _judged(drawn, info, trial, failed)
    return replace(proof, seconds=time.monotonic() - began)


def _unknown(index: str, service: str, reason: str) -> Proof:
    return Proof(index, service, "unknown", False, (reason,))


def _judged(drawn: Drawn, info: ServiceInfo, trial: Trial, failed: str | None) -> Proof:
    numbers = trial.numbers()
    proof = replace(_unknown(drawn.config.name, info.name, ""), source=trial.source, numbers=numbers)
    told = (failed,) if failed else ()
    if numbers is None or numbers.finding == "too_few":
        rows = numbers.rows if numbers else 0
        few = f"{rows} rows of different texts were compared; {MIN_ROWS} are the fewest that tell."
        return replace(proof, reasons=(*told, few))
    if numbers.finding not in ("same", "near"):
        verdict, reason = _refusal(drawn, numbers)
        return replace(proof, verdict=verdict, reasons=(*told, reason))
    variants = _variants(drawn, info, trial, numbers)
    same = f"{numbers.agreeing:.0%} of {numbers.rows} rows have the vector that the service makes of their text."
    return replace(
        proof,
        verdict="variant" if variants else "match",
        usable=all(variant.usable for variant in variants),
        variants=tuple(variant.name for variant in variants),
        reasons=(*told, same, *(variant.reason for variant in variants)),
    )


@dataclass(frozen=True, slots=True)
class _Variant:
    name: str
    reason: str
    usable: bool = True


def _variants(drawn: Drawn, info: ServiceInfo, trial: Trial, numbers: Agreement) -> list[_Variant]:
    """In what the stored vectors differ from those that the service makes of content."""
    found, here = [], drawn.config.dimension
    if trial.reading.name is not None:
        found.append(_Variant(trial.reading.name, trial.reading.reason))
    if info.dimension != here:
        reason = f"Stored vectors are the first {here} of the service's {info.dimension} dimensions; a service that "
        found.append(_Variant(f"truncated to {here}", f"{reason}makes {here} is needed.", usable=False))
    elif numbers.scale != "same":
        usable = drawn.config.metric == "cosine"
        lengths = f"lengths around {numbers.norms[1]:.4g}, the service's around {numbers.new_norms[1]:.4g}"
        seen = "which cosine does not see" if usable else f"which {drawn.config.metric} would see in new content"
        name = "normalized" if numbers.scale == "stored_normalized" else "not normalized"
        found.append(_Variant(name, f"Stored vectors have {lengths}, {seen}.", usable))
    if numbers.finding == "near":
        reason = "Vectors are close but not equal: another build of the model, or a slightly different text."
        found.append(_Variant("near", reason))
    return found


def _refusal(drawn: Drawn, numbers: Agreement) -> tuple[Verdict, str]:
    rows, found = numbers.rows, f"{numbers.self_recall:.0%} of {numbers.rows} rows find themselves"
    match numbers.finding:
        case "mixed":
            same = round(numbers.agreeing * rows)
            return "unknown", (
                f"{same} of {rows} rows have the vector that the service makes of their text, the others not: their "
                "text was changed since, holds more, or another model embedded them."
            )
        case "related":
            return "unknown", (
                f"The vectors lie in the service's space ({found}), but are others: the text that was embedded is "
                "another than this field, or another version of the model embedded it."
            )
    if numbers.same_texts:
        return "mismatch", (
            f"Another model made these vectors ({found}), from this very text: similar texts have similar vectors "
            f"(correlation {numbers.structure:.2f})."
        )
    if drawn.given:
        return "mismatch", f"The service did not make these vectors from this text ({found}, no more than by chance)."
    return "unknown", (
        f"No payload field was found that these vectors were made from ({found}, no more than by chance): name it as "
        "source_field, if there is one."
    )
