"""Drift: whether a service still makes of fixed texts what it made of them when an index was first mapped to it.

A provider may change a model behind its name; queries would then be compared with vectors of another model, silently.
The texts are embedded past every cache, once a day, and a cosine below the bound is told wherever services are shown.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import transaction
from app.db.statements import as_json, statement
from app.domain.inference.services import refresh, refresh_for
from app.domain.runtime import Runtime
from app.domain.security import audit
from app.errors import NotFound, PgretrieveError
from app.inference.base import Vectors
from app.inference.turns import Urgency, urgency

log = logging.getLogger(__name__)

# Never change them: vectors of them are kept. Short and long, several scripts, code, numbers.
CANARIES = (
    "The quick brown fox jumps over the lazy dog.",
    "Wireless over-ear headphones with active noise cancelling and thirty hours of battery",
    "Die Rückgabe ist innerhalb von 30 Tagen möglich.",
    "如何重置我的密码?",
    "SELECT name, sum(price) FROM orders GROUP BY name ORDER BY 2 DESC LIMIT 10;",
    "3.14159 26535 89793",
    "no",
    "A long sentence that goes on about nothing in particular, so that a model which reads only the beginning of a "
    "text, or weighs its parts in another way than it did, has something to show it by: the sea was calm, the harbour "
    "asleep, and the lamps along the quay went out one after the other until the last of the boats had come in.",
)
# Local models are bit-identical (measured: alone and in batches, 1 to 4 threads). Of remote ones, components of a same
# text are reported to differ by 1e-4, at worst 1e-3; of 1,536 components of 0.026, noise of 1e-4 makes a cosine of
# 1 - 8e-6, and 1e-3 throughout would make 1 - 8e-4. Another model is near 0, one that was trained on mostly below 0.99.
EPSILON = 0.002

Verdict = Literal["first", "same", "changed", "failed"]


@dataclass(frozen=True, slots=True)
class Probe:
    """One comparison; `first`: there was nothing to compare with yet."""

    service: str
    verdict: Verdict
    min_cosine: float | None
    probed_at: datetime
    error: str | None = None

    @property
    def warning(self) -> str | None:
        if self.verdict != "changed":
            return None
        return (
            f"The service {self.service!r} does not make the vectors any more that it made when it was first mapped "
            f"(cosine {self.min_cosine:.4f} of the same text, {self.probed_at:%Y-%m-%d}): its provider may have "
            "changed the model. Stored vectors and new ones may not fit together; embed anew, or accept it by a probe."
        )


async def probe(runtime: Runtime, name: str, *, anew: bool = False) -> Probe:
    """Compare the service with what is kept of it, and note the verdict; `anew`: from now on this is what is right."""
    await refresh_for(runtime, [name])
    service = runtime.inference.get(name)
    if service is None:
        raise NotFound("inference service", name, f"The services are {', '.join(runtime.inference.names())}.")
    about = {"service": name, "model": service.info.model, "revision": service.info.fingerprint}
    found: dict[str, Any] = {"verdict": "failed", "min_cosine": None, "error": None}
    now = None
    try:
        now = (await runtime.inference.answer(name, CANARIES, "document")).vectors
    except PgretrieveError as error:
        found["error"] = as_json({"code": error.error_code, "message": error.message})
    async with transaction(runtime.engine, runtime.settings) as conn:
        if now is not None:
            before = await _kept(conn, name)
            if before is None or anew:
                found["verdict"] = "first"
                await conn.execute(statement("keep_canaries"), {**about, "vectors": list(now), "anew": anew})
            else:
                least = min_cosine(before, now)
                found |= {"verdict": "same" if least >= 1 - EPSILON else "changed", "min_cosine": least}
            if anew:
                await audit.record(conn, "inference_service", "accepted", name)
        noted = Probe(*(await conn.execute(statement("insert_probe"), {**about, **found})).one())
    if noted.warning:
        log.warning("%s", noted.warning)
    return noted


def min_cosine(before: Vectors, now: Vectors) -> float:
    """The least cosine of a row with itself; 0 where there are other texts or dimensions."""
    if before.shape != now.shape:
        return 0.0
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(now, axis=1)
    products = np.einsum("ij,ij->i", before, now, dtype=np.float64)
    return float(np.min(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)))


async def _kept(conn: AsyncConnection, name: str) -> Vectors | None:
    rows = (await conn.execute(statement("find_canaries"), {"service": name})).all()
    vectors = [row.vector.to_numpy() for row in rows]
    if not vectors or len({len(vector) for vector in vectors}) > 1:
        return None
    stacked: Vectors = np.stack(vectors)
    return stacked


async def probe_due(runtime: Runtime) -> list[Probe]:
    """Probe the mapped services whose turn it is. What cannot be used on this server is another's to probe."""
    every = timedelta(hours=runtime.settings.drift_probe_hours)
    if not every:
        return []
    await refresh(runtime)
    async with transaction(runtime.engine, runtime.settings) as conn:
        names = list((await conn.execute(statement("services_to_probe"), {"every": every})).scalars())
    found = []
    with urgency(Urgency.BACKFILL):
        for name in names:
            service = runtime.inference.get(name)
            if service is not None and service.unavailable() is None:
                found.append(await probe(runtime, name))
    return found


async def last(conn: AsyncConnection, names: Iterable[str] | None = None) -> Mapping[str, Probe]:
    """The last comparison of each service that answered."""
    binds = {"names": None if names is None else list(names)}
    return {row[0]: Probe(*row) for row in await conn.execute(statement("last_probes"), binds)}


async def warnings(conn: AsyncConnection, names: Iterable[str]) -> list[str]:
    """What is to be said of services that are about to be mapped, or are."""
    return [probe.warning for probe in (await last(conn, names)).values() if probe.warning]
