"""The proofs of one promotion: of its mappings, of what may be suggested, and what `require` refuses."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from app.domain.promoting.promotion import Mapped, Promotion
from app.domain.promoting.proof import Proof, draw_rows, judge, prove
from app.domain.runtime import Runtime
from app.errors import Problem, Problems
from app.inference.base import ServiceInfo
from app.retrieval.catalog import Catalog, VectorConfig

Verify = Literal["off", "sample", "require"]


async def prove_mappings(
    runtime: Runtime, catalog: Catalog, wanted: Promotion, verify: Verify | None, ends_at: float
) -> list[Proof]:
    """A proof for each mapping of a dense index that exists. None is `sample`, but sends nobody's texts anywhere.

    Where nothing was said of verifying, a remote service is asked only about a `source_field` that is named: fields
    that were found may hold what nobody meant to leave the server.
    """
    if verify == "off":
        return []
    mappings = [mapped for mapped in wanted.vector_mappings if _can_be_proven(runtime, catalog, mapped, verify)]
    proofs = []
    for n, mapped in enumerate(mappings):
        deadline = _share(ends_at, len(mappings) - n)
        names = mapped.existing_index, mapped.inference_service, mapped.source_field
        proofs.append(await prove(runtime, catalog, *names, deadline=deadline))
    return proofs


def _can_be_proven(runtime: Runtime, catalog: Catalog, mapped: Mapped, verify: Verify | None) -> bool:
    config, service = catalog.by_name.get(mapped.existing_index), runtime.inference.get(mapped.inference_service)
    if config is None or config.kind != "dense" or service is None:
        return False
    return verify is not None or mapped.source_field is not None or not service.info.remote


def _share(ends_at: float, left: int) -> float:
    """When the next of so many proofs must end, so that none takes the time of the others."""
    now = asyncio.get_running_loop().time()
    return now + max(0.0, ends_at - now) / left


def unproven(wanted: Promotion, proofs: Iterable[Proof]) -> list[Problem]:
    """What `require` refuses: each mapping that is not proven to be usable, with the reasons."""
    problems = Problems()
    places = {mapped.existing_index: n for n, mapped in enumerate(wanted.vector_mappings)}
    for proof in proofs:
        at = ("body", "vector_mappings", places[proof.index], "inference_service")
        message = f"{_said(proof)} {' '.join(proof.reasons)}"
        if proof.verdict == "unknown":
            problems.add(at, "proof_unknown", message)
        elif not proof.usable:
            problems.add(at, "proof_mismatch", message)
    return problems.found


def _said(proof: Proof) -> str:
    said = {"unknown": "is not proven to have made", "mismatch": "did not make"}.get(proof.verdict, "cannot serve")
    return f"{proof.inference_service!r} {said} the vectors of {proof.index!r}."


async def explained(
    runtime: Runtime,
    catalog: Catalog,
    wanted: Promotion,
    problems: Sequence[Problem],
    verify: Verify | None,
    ends_at: float,
) -> list[Problem]:
    """The same problems; a dimension that does not fit says whether the index holds a part of the service's vectors."""
    told = list(problems)
    for n, problem in enumerate(problems):
        if problem.code != "dimension_mismatch" or problem.location[1] != "vector_mappings":
            continue
        mapped = wanted.vector_mappings[int(problem.location[2])]
        for proof in await prove_mappings(runtime, catalog, Promotion([mapped]), verify, ends_at):
            if proof.verdict == "variant":
                told[n] = replace(problem, message=f"{problem.message} {' '.join(proof.reasons)}")
    return told


async def suggestions(
    runtime: Runtime,
    catalog: Catalog,
    services: Mapping[str, ServiceInfo],
    proofs: Iterable[Proof],
    verify: Verify | None,
    ends_at: float,
) -> list[dict[str, Any]]:
    """For each index the services that may have made its vectors, the best first.

    A matching dimension alone is a weak sign, so low confidence. It is high where a proof says so; then also services
    of more dimensions are named, of which the index holds the first. Mappings that are proven are not doubted. Remote
    services are asked only about an index that the request does not map, and where it says `verify`.
    """
    services = {name: info for name, info in services.items() if not info.sample}
    known = {(proof.index, proof.inference_service): proof for proof in proofs}
    settled = {proof.index for proof in known.values() if proof.verdict in ("match", "variant")}
    dense = [config for config in catalog.vector_configs if config.kind == "dense"]
    open_ = [config for config in dense if config.name not in settled] if verify != "off" else []
    for n, config in enumerate(open_):
        asked = verify is not None and config.name not in {index for index, _ in known}
        candidates = _candidates(config, services, remote=asked)
        wanted = [info.name for info in candidates if (config.name, info.name) not in known]
        found = await _prove_each(runtime, catalog, config, wanted, _share(ends_at, len(open_) - n))
        known |= {(config.name, proof.inference_service): proof for proof in found}
    return [
        {"existing_index": config.name, "dimension": config.dimension, "candidates": _shown(config, services, known)}
        for config in catalog.vector_configs
    ]


def _candidates(config: VectorConfig, services: Mapping[str, ServiceInfo], *, remote: bool) -> list[ServiceInfo]:
    """Those of its dimension first."""
    found = [i for i in services.values() if i.dimension >= config.dimension and (remote or not i.remote)]
    return sorted(found, key=lambda info: info.dimension != config.dimension)


async def _prove_each(
    runtime: Runtime, catalog: Catalog, config: VectorConfig, names: Sequence[str], ends_at: float
) -> list[Proof]:
    drawn = await draw_rows(runtime, catalog, config, None, ends_at) if names else ""
    if isinstance(drawn, str):
        return []
    proofs = []
    for n, name in enumerate(names):
        service = runtime.inference.get(name)
        if service is not None and service.unavailable() is None:
            proofs.append(await judge(runtime, drawn, config.name, name, _share(ends_at, len(names) - n)))
            if proofs[-1].verdict == "match":
                break
    return proofs


def _shown(
    config: VectorConfig, services: Mapping[str, ServiceInfo], known: Mapping[tuple[str, str], Proof]
) -> list[dict[str, Any]]:
    found = []
    for info in services.values():
        proof = known.get((config.name, info.name))
        proven = proof is not None and proof.verdict in ("match", "variant")
        if config.kind != "dense" or (info.dimension != config.dimension and not proven):
            continue
        merit = (proven, proof.usable, proof.numbers.agreement) if proof and proof.numbers else (False, False, 0.0)
        candidate = {"inference_service": info.name, "confidence": "high" if proven else "low"}
        found.append((merit, candidate | ({"proof": shown(proof)} if proof else {})))
    found.sort(key=lambda each: each[0][:2], reverse=True)
    return [candidate for _, candidate in found]


def shown(proof: Proof) -> dict[str, Any]:
    """A proof as answers show it."""
    source, numbers = proof.source, proof.numbers
    return {
        "existing_index": proof.index,
        "inference_service": proof.inference_service,
        "verdict": proof.verdict,
        "usable": proof.usable,
        "variants": list(proof.variants),
        "reasons": list(proof.reasons),
        "source": {"field": source.text, "how": source.how} if source else None,
        "numbers": {name: _rounded(value) for name, value in asdict(numbers).items()} if numbers else None,
        "seconds": round(proof.seconds, 3),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return [round(each, 4) for each in value] if isinstance(value, tuple) else value


def in_short(proofs: Iterable[Proof]) -> str:
    """For a header: each index with its verdict."""
    return "; ".join(f"{proof.index}={proof.verdict}" for proof in proofs)
