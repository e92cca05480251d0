"""Compiles stored pipelines: JSON → checked stages → one SQL statement. Pure: no connection, no clock, no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import array

from app.errors import Problems
from app.retrieval import templates
from app.retrieval.catalog import Catalog
from app.retrieval.filters import Filter, to_json
from app.retrieval.plan import Plan, constant, render
from app.retrieval.stages import REGISTRY
from app.retrieval.stages.base import Check, Limits, Location, Lowering, SqlStage, StageType

# pgvector's ef_search bounds what one index scan answers; above it, iteration goes on.
EF_SEARCH_MAX = 1_000


@dataclass(frozen=True)
class Pipeline:
    """The stages of a retriever, decoded; templates stand where values will be."""

    names: tuple[str, ...]
    stages: tuple[SqlStage, ...]
    input_names: frozenset[str]

    @property
    def named_rows(self) -> int | None:
        """The number of rows that the pipeline names: the last of its stages that bounds them."""
        return next((most for stage in reversed(self.stages) if (most := stage.most_rows()) is not None), None)


def parse_pipeline(raw: Any, limits: Limits, problems: Problems, location: Location = ("body", "stages")) -> Pipeline:
    """Decode the envelope and parameters of every stage; what is wrong is added to `problems`."""
    if not isinstance(raw, list) or not 1 <= len(raw) <= limits.stages:
        problems.add(location, "bad_stages", f"`stages` is a list of 1 to {limits.stages} stages.")
        return Pipeline((), (), frozenset())
    lifted = templates.lift(raw, location, problems)
    parsed = [_parse_stage(envelope, (*location, n), problems) for n, envelope in enumerate(lifted)]
    stages = [stage for stage in parsed if stage is not None]
    names = [envelope.get("stage_name") if isinstance(envelope, dict) else None for envelope in raw]
    shown = tuple(str(name or stage.stage_id) for name, stage in zip(names, stages, strict=False))
    return Pipeline(shown, tuple(stages), templates.input_names(lifted))


def _parse_stage(envelope: Any, here: Location, problems: Problems) -> SqlStage | None:
    config = envelope.get("config") if isinstance(envelope, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("parameters", {}), dict):
        message = 'A stage is {"stage_name": …, "config": {"stage_id": …, "parameters": {…}}}.'
        problems.add(here, "bad_stage", message)
        return None
    stage_id = config.get("stage_id")
    stage = REGISTRY.get(stage_id) if isinstance(stage_id, str) else None
    if stage is None:
        message = f"No stage {stage_id!r}; the stages are {', '.join(REGISTRY)}."
        problems.add((*here, "config", "stage_id"), "unknown_stage", message)
        return None
    stage_type = envelope.get("stage_type")
    if stage_type is not None and stage_type not in (*get_args(StageType), "group"):
        problems.add((*here, "stage_type"), "bad_stage", f"No stage_type {stage_type!r}.")
    for name in ("post_filters",) if config.get("post_filters") else ():
        message = f"{name} is not offered by this server; use an attribute_filter stage after this one."
        problems.add((*here, "config", name), "not_offered", message)
    if envelope.get("output_alias"):
        problems.add((*here, "output_alias"), "not_offered", "output_alias is not offered by this server.")
    parameters = dict(config.get("parameters", {}))
    if config.get("pre_filters"):
        if "filters" not in stage.__struct_fields__:
            message = f"The stage {stage_id!r} takes no pre_filters; put an attribute_filter stage before it."
            problems.add((*here, "config", "pre_filters"), "not_offered", message)
        else:
            parameters["filters"] = config["pre_filters"]
    return _decode(stage, parameters, (*here, "config", "parameters"), problems)


def _decode(stage: type[SqlStage], parameters: dict[str, Any], here: Location, problems: Problems) -> SqlStage | None:
    missing = sorted(name for name in stage.not_offered if parameters.get(name) is not None)
    for name in missing:
        message = f"The parameter {name!r} of {stage.stage_id} is not offered by this server."
        problems.add((*here, name), "not_offered", message)
    offered = {name: value for name, value in parameters.items() if name not in stage.not_offered}
    try:
        return msgspec.convert(offered, stage)
    except msgspec.ValidationError as error:
        problems.add(here, "bad_parameter", f"{stage.stage_id}: {error}.")
        return None


def check_pipeline(
    pipeline: Pipeline,
    catalog: Catalog,
    limits: Limits,
    problems: Problems,
    location: Location = ("body", "stages"),
) -> None:
    """Add what is wrong with the stages in this namespace."""
    for n, stage in enumerate(pipeline.stages):
        here = (*location, n, "config", "parameters")
        stage.check(Check(catalog, limits, problems, here))
    searching = [n for n, stage in enumerate(pipeline.stages) if stage.stage_id == "feature_search"]
    if catalog.mode == "standalone" and len(searching) > 1:
        message = (
            "A standalone namespace takes one feature_search stage (with several `searches` and `fusion`); "
            "promotion to a managed namespace allows more."
        )
        problems.add((*location, searching[1]), "one_search_stage", message)


def compile_plan(
    pipeline: Pipeline,
    catalog: Catalog,
    limits: Limits,
    *,
    retriever_id: str | None,
    provided: frozenset[str],
    filters: Filter | None = None,
    vectors: Sequence[str] = (),
    ef_search: int = 100,
    after: bool = False,
) -> Plan:
    """Lower each stage into the next, as CTEs that read in the order of the pipeline.

    With `after` the answer begins after a document, which each request names.
    """
    to = Lowering(catalog, limits, provided, everywhere=filters, ef_search=ef_search)
    ctes: list[sa.CTE] = []
    for n, stage in enumerate(pipeline.stages, start=1):
        to.prefix = f"s{n}"
        source = ctes[-1] if ctes else None
        ctes.append(stage.lower(source, to).cte(f"s{n}_{stage.stage_id}"))
    statement = _answer(ctes, catalog, retriever_id, vectors, to, after=after)
    return Plan(
        text=render(statement),
        binds=tuple(to.binds.found.values()),
        embeds=tuple(to.embeds),
        settings={
            "hnsw.ef_search": str(min(to.ef_search, EF_SEARCH_MAX)),
            "hnsw.iterative_scan": "strict_order",
        },
        stages=pipeline.names,
        vectors=tuple(vectors),
        relaxed=tuple(to_json(condition) for condition in to.relaxed),
    )


def _answer(
    ctes: Sequence[sa.CTE],
    catalog: Catalog,
    retriever_id: str | None,
    vectors: Sequence[str],
    to: Lowering,
    *,
    after: bool,
) -> sa.Select[Any]:
    """The last stage's page with its documents, beside the versions that the plan must still agree with."""
    last, documents = ctes[-1], catalog.documents
    counts = array([sa.select(sa.func.count()).select_from(cte).scalar_subquery() for cte in ctes])
    state = sa.select(*_versions(catalog, retriever_id, to), counts.label("counts")).cte("state")
    rows = sa.select(last.c.document_id, last.c.score, last.c.rank)
    page = (
        (rows.where(last.c.rank > _rank_before(last, to)) if after else rows)
        .order_by(last.c.rank)
        .limit(to.binds.add("page_limit", sa.BigInteger(), None))
        .offset(to.binds.add("page_offset", sa.BigInteger(), None))
        .cte("page")
    )
    hits = page.join(documents, documents.c.document_id == page.c.document_id)
    columns = [catalog.vector_text(documents, catalog.by_name[name]) for name in vectors]
    return (
        sa.select(
            *state.c,
            page.c.rank,
            page.c.document_id,
            page.c.score,
            documents.c.collection_id,
            sa.cast(documents.c.payload, sa.Text).label("payload"),
            sa.cast(documents.c.metadata, sa.Text).label("metadata"),
            documents.c.created_at,
            documents.c.updated_at,
            *columns,
        )
        .select_from(state.outerjoin(hits, sa.true()))
        .order_by(page.c.rank)
    )


def _rank_before(last: sa.CTE, to: Lowering) -> sa.ColumnElement[int]:
    """The rank that the answer begins after: of the document that is named; where that is gone, the one before it."""
    document = to.binds.add("after_id", sa.Text(), None)
    named = sa.select(last.c.rank).where(last.c.document_id == document)
    place = to.binds.add("after_rank", sa.BigInteger(), None) - constant(1)
    score = to.binds.add("after_score", sa.Double(), None)
    better = sa.select(sa.func.max(last.c.rank)).where(last.c.score > score)
    return sa.func.coalesce(named.scalar_subquery(), place, better.scalar_subquery(), constant(0))


def _versions(catalog: Catalog, retriever_id: str | None, to: Lowering) -> list[sa.Label[Any]]:
    namespaces = sa.table("namespaces", sa.column("namespace_id"), sa.column("version"), schema="pgretrieve")
    retrievers = sa.table("retrievers", sa.column("retriever_id"), sa.column("version"), schema="pgretrieve")
    namespace = to.binds.add("namespace_id", sa.Text(), catalog.namespace_id)
    retriever = to.binds.add("retriever_id", sa.Text(), retriever_id)
    of_namespace = sa.select(namespaces.c.version).where(namespaces.c.namespace_id == namespace)
    of_retriever = sa.select(retrievers.c.version).where(retrievers.c.retriever_id == retriever)
    return [
        of_namespace.scalar_subquery().label("namespace_version"),
        of_retriever.scalar_subquery().label("retriever_version"),
    ]
