"""Compiles the SQL stages of a pipeline to one statement. Pure: no connection, no clock, no network."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, array

from app.retrieval.catalog import Catalog
from app.retrieval.filters import Filter, to_json
from app.retrieval.pipeline import Segment
from app.retrieval.plan import Plan, constant, render
from app.retrieval.stages.base import Limits, Lowering, Rows
from app.retrieval.strategy import Way


def compile_plan(
    segment: Segment,
    catalog: Catalog,
    limits: Limits,
    *,
    retriever_id: str | None,
    provided: frozenset[str],
    filters: Filter | None = None,
    vectors: Sequence[str] = (),
    ways: Mapping[str, Way] | None = None,
    after: bool = False,
    after_host: bool = False,
    function_of: frozenset[str] | None = None,
) -> Plan:
    """Lower each stage into the next, as CTEs that read in the order of the pipeline.

    With `after` the answer begins after a document, which each request names. `after_host` says that the first stage
    reads the rows of the bind `rows`, which a host stage made, instead of the whole namespace. With `function_of`
    it is the statement of a function, whose parameters of these names may be NULL: its rows, nothing of the catalog.
    """
    to = Lowering(
        catalog,
        limits,
        provided,
        everywhere=filters,
        after_host=after_host,
        ways=ways or {},
        as_function=function_of is not None,
        optional=function_of or frozenset(),
    )
    source = _given_rows(to) if after_host else None
    ctes: list[sa.CTE] = []
    for n, (step, stage) in enumerate(segment.sql, start=segment.first + 1):
        to.prefix, to.parallel = f"s{n}", step.alias is not None and source is not None
        source = stage.lower(source, to).cte(f"s{n}_{stage.stage_id}")
        if step.post_filters is not None:
            source = _filtered(source, step.post_filters, to).cte(f"s{n}_post_filters")
        ctes.append(source)
    if function_of is None:
        statement = _answer(ctes, catalog, retriever_id, vectors, to, after=after)
    else:
        statement = _rows(ctes[-1], catalog, to)
    return Plan(
        text=render(statement),
        binds=tuple(to.binds.found.values()),
        embeds=tuple(to.embeds),
        stages=tuple(step.name for step in segment.steps),
        vectors=tuple(vectors),
        told=tuple(to.told),
        relaxed=_relaxed(to),
        wholes=tuple(to.wholes),
        reads=tuple(to.reads),
        shapes=tuple(to.shapes),
        needs_one=tuple(to.needs_one),
        timeout_ms=min(to.timeouts_ms, default=None),
        warnings=tuple(to.warnings),
    )


def _relaxed(to: Lowering) -> tuple[dict[str, Any], ...]:
    """The conditions that were dropped, each once, though a filter may stand in several places."""
    found: list[dict[str, Any]] = []
    for condition in map(to_json, to.relaxed):
        found += [condition] if condition not in found else []
    return tuple(found)


def _given_rows(to: Lowering) -> sa.CTE:
    """The rows that the host hands back: a bind of their JSON."""
    given = to.binds.add("rows", JSONB(), None)
    rows = sa.func.jsonb_to_recordset(given).table_valued(
        sa.column("document_id", sa.Text),
        sa.column("score", sa.Double),
        sa.column("rank", sa.BigInteger),
        sa.column("fields", JSONB),
        name="given",
    )
    return sa.select(*rows.render_derived(with_types=True).c).cte("s0_rows")


def _filtered(source: sa.CTE, raw: Any, to: Lowering) -> sa.Select[Any]:
    rows = Rows(source, to)
    return rows.select().where(*to.where(raw, rows.get, "post_filter"))


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
    beside = [counts.label("counts"), _told(to).label("told")]
    state = sa.select(*_versions(catalog, retriever_id, to), *beside).cte("state")
    changed = "fields" in last.c
    rows = sa.select(last.c.document_id, last.c.score, last.c.rank, *([last.c.fields] if changed else []))
    page = (
        (rows.where(last.c.rank > _rank_before(last, to)) if after else rows)
        .order_by(last.c.rank)
        .limit(to.binds.add("page_limit", sa.BigInteger(), None))
        .offset(to.binds.add("page_offset", sa.BigInteger(), None))
        .cte("page")
    )
    hits = page.join(documents, documents.c.document_id == page.c.document_id, isouter=to.after_host)
    columns = [catalog.vector_text(documents, catalog.by_name[name]) for name in vectors]
    fields = page.c.fields if changed else sa.null()
    return (
        sa.select(
            *state.c,
            sa.cast(fields, sa.Text).label("fields"),
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


def _rows(last: sa.CTE, catalog: Catalog, to: Lowering) -> sa.Select[Any]:
    """The last stage's rows with their documents: `rank, document_id, score, collection_id, payload, …`."""
    documents = catalog.documents
    payload = sa.func.coalesce(last.c.fields, documents.c.payload) if "fields" in last.c else documents.c.payload
    columns = [documents.c[name] for name in ("metadata", "created_at", "updated_at")]
    rank, score = sa.cast(last.c.rank, sa.BigInteger).label("rank"), sa.cast(last.c.score, sa.Double).label("score")
    return (
        sa.select(rank, last.c.document_id, score, documents.c.collection_id, payload, *columns)
        .join_from(last, documents, documents.c.document_id == last.c.document_id)
        .order_by(last.c.rank)
        .limit(to.binds.add("page_limit", sa.BigInteger(), None))
    )


def _told(to: Lowering) -> sa.ColumnElement[Any]:
    """What stages answer beside their rows: JSON, an array in the order of `Plan.told`; or NULL.

    As text, for it stands in every row of the answer and is read once: the driver would decode each, 10 µs a row.
    """
    told = sa.func.jsonb_build_array(*to.told.values(), type_=JSONB) if to.told else sa.null()
    return sa.cast(told, sa.Text)


def _rank_before(last: sa.CTE, to: Lowering) -> sa.ColumnElement[int]:
    """The rank that the answer begins after: of the first of the documents named that is there; else by the place."""
    shown = to.binds.add("after_ids", sa.ARRAY(sa.Text), None)
    place = to.binds.add("after_rank", sa.BigInteger(), None) - constant(1)
    # A document may have several rows, as after an unwind: the one that is nearest to its place.
    nearest = sa.func.abs(last.c.rank - place - constant(1))
    order = (sa.func.array_position(shown, last.c.document_id), nearest, last.c.rank)
    named = sa.select(last.c.rank).where(last.c.document_id == sa.any_(shown)).order_by(*order).limit(constant(1))
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
