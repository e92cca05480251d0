"""Aggregation of a collection's documents, and the distinct values of a field."""

from itertools import pairwise
from typing import Annotated, Any

import msgspec
from litestar import Router, post
from litestar.params import FromPath, JSONBody

from app.api.document_models import AnyRequest, Filters, check_field
from app.api.wire import Input, Json, RuntimeDep, namespace_of
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog
from app.domain.documents import aggregation
from app.domain.documents.aggregation import (
    Aggregation,
    Comparison,
    DatePart,
    DateTrunc,
    Function,
    Group,
    Having,
    Metric,
)
from app.domain.runtime import Runtime
from app.errors import Problems
from app.retrieval.filter_parser import parse_filter
from app.retrieval.operators import check_value

MOST_PARTS = 32
MOST_BOUNDARIES = 200
Number = int | float
Alias = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class MetricInput(Input, frozen=True):
    """What is computed of each group. `sum` and `avg` are of numbers alone; null and missing values never count."""

    function: Function
    alias: Alias
    field: str | None = None
    distinct_field: str | None = None


class GroupInput(Input, frozen=True):
    """A field whose values make groups, whole or by a part of its date (UTC, unless the value names a zone)."""

    field: str
    alias: Alias | None = None
    date_trunc: DateTrunc | None = None
    date_part: DatePart | None = None


class RangeInput(Input, frozen=True):
    """Ranges of a number between ascending boundaries, the upper included; `default_bucket` is what lies outside."""

    field: str
    boundaries: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=MOST_BOUNDARIES)]
    default_bucket: str | None = None


class HavingInput(Input, frozen=True):
    """Groups that are kept: those whose metric compares so."""

    field: str
    operator: Comparison
    value: msgspec.Raw


class AggregateInput(Input, frozen=True):
    """Groups of a collection's documents and what is computed of each; without groups, of all documents together."""

    aggregations: Annotated[list[MetricInput], msgspec.Meta(min_length=1, max_length=MOST_PARTS)]
    group_by: Annotated[list[GroupInput], msgspec.Meta(max_length=MOST_PARTS)] | None = None
    filters: Filters = None
    having: Annotated[list[HavingInput], msgspec.Meta(max_length=MOST_PARTS)] | None = None
    unwind: str | None = None
    range_buckets: Annotated[list[RangeInput], msgspec.Meta(max_length=MOST_PARTS)] | None = None
    sort_by: str | None = None
    sort_direction: Annotated[str, msgspec.Meta(pattern="^(asc|desc)$")] = "desc"
    limit: int | None = None


class DistinctInput(Input, frozen=True):
    """A field, whose values are answered; those of an array one by one."""

    field: str
    filters: Filters = None
    limit: int | None = None


class Aggregated(msgspec.Struct, kw_only=True):
    """The groups; `query_info.truncated` says that there are more than one answer holds."""

    results: list[dict[str, Any]]
    total_groups: int
    query_info: dict[str, Any] = {}


class Distinct(msgspec.Struct, kw_only=True):
    """The values, the commonest first."""

    field: str
    values: list[dict[str, Any]]
    total_distinct: int
    query_info: dict[str, Any] = {}


@post(
    "/collections/{collection:str}/documents/aggregate",
    dto=Json[AggregateInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="aggregate_documents",
)
async def aggregate(
    collection: FromPath[str], data: JSONBody[AggregateInput], request: AnyRequest, runtime: RuntimeDep
) -> Aggregated:
    """Group a collection's documents and compute what is asked for of each group."""
    problems = Problems()
    most = _limit(data.limit, runtime, problems)
    wanted = _wanted(data, collection, most + 1, runtime, problems)
    problems.refuse()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        found = await aggregation.aggregate(conn, catalog, wanted)
    info = _info(len(found) > most and data.limit is None, most)
    return Aggregated(results=found[:most], total_groups=len(found[:most]), query_info=info)


@post(
    "/collections/{collection:str}/documents/distinct",
    dto=Json[DistinctInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="distinct_values",
)
async def distinct(
    collection: FromPath[str], data: JSONBody[DistinctInput], request: AnyRequest, runtime: RuntimeDep
) -> Distinct:
    """The values of a field, and in how many documents each one is; null and missing ones are none."""
    problems = Problems()
    most = _limit(data.limit, runtime, problems)
    check_field(data.field, ("body", "field"), problems)
    filters = parse_filter(data.filters, ("body", "filters"), problems, runtime.limits.filters, templated=False)
    problems.refuse()
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_of(request))
        found = await aggregation.distinct(conn, catalog, data.field, [collection], filters, most + 1)
    values = [{"value": value, "count": count} for value, count in found[:most]]
    info = _info(len(found) > most and data.limit is None, most)
    return Distinct(field=data.field, values=values, total_distinct=len(values), query_info=info)


def _info(truncated: bool, most: int) -> dict[str, Any]:
    if not truncated:
        return {}
    return {"truncated": True, "warning": f"There are more than {most}, which is as many as one answer holds."}


def _limit(limit: int | None, runtime: Runtime, problems: Problems) -> int:
    most = runtime.settings.max_groups
    if limit is not None and not 1 <= limit <= most:
        problems.add(("body", "limit"), "out_of_range", f"limit is from 1 to {most}, not {limit}.")
        return 1
    return limit or most


def _wanted(data: AggregateInput, collection: str, limit: int, runtime: Runtime, problems: Problems) -> Aggregation:
    metrics = [_metric(metric, n, problems) for n, metric in enumerate(data.aggregations)]
    groups = [_group(group, n, problems) for n, group in enumerate(data.group_by or ())]
    groups += [_range(ranges, n, problems) for n, ranges in enumerate(data.range_buckets or ())]
    aliases = [group.alias for group in groups] + [metric.alias for metric in metrics]
    for alias in sorted({alias for alias in aliases if aliases.count(alias) > 1}):
        problems.add(("body",), "duplicate_name", f"The name {alias!r} is given to more than one group or metric.")
    _check_alias(data.sort_by, ("body", "sort_by"), aliases, problems)
    for n, having in enumerate(data.having or ()):
        _check_alias(having.field, ("body", "having", n, "field"), aliases, problems)
        _check_json(having.value, ("body", "having", n, "value"), problems)
    if data.unwind is not None:
        check_field(data.unwind, ("body", "unwind"), problems)
    return Aggregation(
        metrics=metrics,
        groups=groups,
        collections=[collection],
        filters=parse_filter(data.filters, ("body", "filters"), problems, runtime.limits.filters, templated=False),
        having=[Having(one.field, one.operator, bytes(one.value).decode()) for one in data.having or ()],
        unwind=data.unwind,
        sort_by=data.sort_by,
        descending=data.sort_direction == "desc",
        limit=limit,
    )


def _check_alias(alias: str | None, at: tuple[str | int, ...], aliases: list[str], problems: Problems) -> None:
    if alias is not None and alias not in aliases:
        names = ", ".join(map(repr, aliases))
        problems.add(at, "unknown_name", f"No group and no metric is called {alias!r}; there are {names}.")


def _check_json(raw: msgspec.Raw, at: tuple[str | int, ...], problems: Problems) -> None:
    try:
        check_value("eq", msgspec.json.decode(raw))
    except (ValueError, RecursionError) as error:
        problems.add(at, "bad_value", f"{error}.")


def _metric(metric: MetricInput, n: int, problems: Problems) -> Metric:
    at = ("body", "aggregations", n)
    field = metric.distinct_field or metric.field if metric.function == "count_distinct" else metric.field
    if field is not None:
        check_field(field, (*at, "field"), problems)
    elif metric.function != "count":
        problems.add((*at, "field"), "missing_field", f"`{metric.function}` needs a `field`.")
    return Metric(metric.function, metric.alias, field)


def _group(group: GroupInput, n: int, problems: Problems) -> Group:
    at = ("body", "group_by", n)
    check_field(group.field, (*at, "field"), problems)
    if group.date_trunc is not None and group.date_part is not None:
        problems.add((*at, "date_part"), "one_of", "Give `date_trunc` or `date_part`, not both.")
    return Group(group.field, group.alias or group.field, group.date_trunc, group.date_part)


def _range(ranges: RangeInput, n: int, problems: Problems) -> Group:
    at = ("body", "range_buckets", n)
    check_field(ranges.field, (*at, "field"), problems)
    try:
        boundaries = [msgspec.json.decode(raw, type=Number) for raw in ranges.boundaries]
        if any(low >= high for low, high in pairwise(boundaries)):
            problems.add((*at, "boundaries"), "out_of_range", "Boundaries ascend, and no two are the same.")
    except msgspec.DecodeError:
        problems.add((*at, "boundaries"), "bad_type", "Boundaries are numbers.")
    outside = "other" if ranges.default_bucket is None else ranges.default_bucket
    if "\0" in outside:
        problems.add((*at, "default_bucket"), "nul_character", "PostgreSQL cannot store U+0000 in text; remove it.")
    texts = [bytes(raw).decode() for raw in ranges.boundaries]
    return Group(ranges.field, ranges.field, ranges=texts, outside=outside)


router = Router("/", route_handlers=[aggregate, distinct], tags=["Documents"])
