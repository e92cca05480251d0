"""A pipeline as a SQL function: its parameters, and its statement for each search strategy. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.retrieval.catalog import Catalog
from app.retrieval.compiler import compile_plan
from app.retrieval.filters import Filter
from app.retrieval.parameters import Filled, NotAFunction, Parameter, alone, type_of
from app.retrieval.pipeline import Pipeline, Segment
from app.retrieval.plan import Bind, Plan, SearchShape
from app.retrieval.stages.base import HostStage, Limits
from app.retrieval.strategy import CANDIDATE, LIST_FOR, Size, Strategy, Way, choose
from app.retrieval.templates import input_names, is_templated, needed_names, unlift

STRATEGIES = ("auto", "exact", "hnsw", "hnsw_iterative")


@dataclass(frozen=True, slots=True)
class Variant:
    """A statement, and the values of `strategy` that it answers."""

    strategies: tuple[str, ...]
    plan: Plan


@dataclass(frozen=True, slots=True)
class FunctionPlan:
    """`relations` are the tables whose indexes are searched, none where all searches are exact; up to `small` rows in
    them `auto` is exact, too."""

    parameters: tuple[Parameter, ...]
    variants: tuple[Variant, ...]
    relations: tuple[str, ...]
    ef_search: int
    small: int

    def filled(self, bind: Bind) -> Filled:
        return Filled(bind, {parameter.input: parameter for parameter in self.parameters})


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be a function: a retriever's pipeline in its namespace. `names` are those of parameters, by inputs."""

    pipeline: Pipeline
    input_schema: Mapping[str, Mapping[str, Any]]
    catalog: Catalog
    limits: Limits
    within: Filter | None
    ef_search: int
    names: Mapping[str, str]

    def plan(
        self,
        provided: frozenset[str],
        optional: frozenset[str] | None,
        ways: Mapping[str, Way] | None = None,
    ) -> Plan:
        """The statement of all stages: what an `output_alias` keeps, only stages on the host would read."""
        return compile_plan(
            Segment(0, self.pipeline.steps),
            self.catalog,
            self.limits,
            retriever_id=None,
            provided=provided,
            filters=self.within,
            ways=ways,
            function_of=optional,
        )


def inputs_of(pipeline: Pipeline, input_schema: Mapping[str, Any]) -> list[str]:
    """The inputs in their order: of the schema, or else by name."""
    return [*input_schema, *sorted(pipeline.input_names - input_schema.keys())]


def compile_function(source: Source) -> FunctionPlan:
    """Raises `NotAFunction`."""
    refuse_host(source.pipeline)
    inputs = frozenset(inputs_of(source.pipeline, source.input_schema))
    optional = _optional(source, inputs)
    try:
        scout = source.plan(inputs, optional)
        open_ = [shape for shape in scout.shapes if shape.ready]
        plans = {name: source.plan(inputs, optional, _ways(open_, name)) for name in STRATEGIES}
    except NotAFunction:
        raise
    except ValueError as error:
        raise NotAFunction(f"The retriever is no SQL function: {error}.") from error
    texts: dict[str, list[str]] = {}
    for name, plan in plans.items():
        texts.setdefault(plan.text, []).append(name)
    variants = tuple(Variant(tuple(names), plans[names[0]]) for names in texts.values())
    ef_search = max((_ef_search(shape, source.ef_search) for shape in open_), default=source.ef_search)
    function = FunctionPlan(
        _parameters(source, variants, optional), variants, _relations(source, open_), ef_search, CANDIDATE * ef_search
    )
    for variant in variants:
        for bind in variant.plan.binds:
            expression_of(function, variant.plan, bind)
    return function


def expression_of(function: FunctionPlan, plan: Plan, bind: Bind) -> Any:
    """What the bind is, in terms of the parameters; None where it is a constant."""
    if not is_templated(bind.value) and all(bind.name != embed.bind for embed in plan.embeds):
        return None
    if bind.sql is None:
        said = unlift(bind.value)
        raise NotAFunction(f"The value of {bind.name}, {said}, is made of an input in a way that SQL does not know.")
    return bind.sql.make(function.filled(bind))


def refuse_host(pipeline: Pipeline) -> None:
    for step in pipeline.steps:
        if isinstance(step.stage, HostStage):
            message = f"The stage {step.name!r} ({step.stage.stage_id}) runs on the host, so it is not part of SQL."
            raise NotAFunction(message)


def _optional(source: Source, inputs: frozenset[str]) -> frozenset[str]:
    """The inputs that the retriever answers without."""
    found = set()
    for name in inputs:
        declared = source.input_schema.get(name) or {}
        if declared.get("required") or declared.get("default") is not None:
            continue
        without = source.plan(inputs - {name}, None)
        if not any(name in needed_names(bind.value) for bind in without.binds):
            found.add(name)
    return frozenset(found)


def _ways(shapes: Sequence[SearchShape], wanted: str) -> dict[str, Way]:
    def one(shape: SearchShape) -> Strategy:
        if wanted == "auto":
            return "hnsw_iterative" if shape.kept is not None else "hnsw"
        return "exact" if wanted == "exact" else "hnsw" if wanted == "hnsw" else "hnsw_iterative"

    return {shape.key: Way(one(shape)) for shape in shapes}


def _ef_search(shape: SearchShape, least: int) -> int:
    filtered = shape.kept is not None
    return choose(Size(LIST_FOR, LIST_FOR // (1 + filtered), filtered, False), shape.rows, ef_search=least).ef_search


def _relations(source: Source, shapes: Sequence[SearchShape]) -> tuple[str, ...]:
    configs = [source.catalog.by_name[shape.index] for shape in shapes]
    return tuple(dict.fromkeys(c.side_table if c.kind == "multi" else "documents" for c in configs))


def _parameters(source: Source, variants: Sequence[Variant], optional: frozenset[str]) -> tuple[Parameter, ...]:
    """Those that are required stand first, as PostgreSQL has it."""
    binds = [bind for variant in variants for bind in variant.plan.binds]
    found = []
    for name in inputs_of(source.pipeline, source.input_schema):
        declared = source.input_schema.get(name)
        uses = {
            bind.sql.wants if bind.sql is not None and alone(bind.value) == name else None
            for bind in binds
            if name in input_names(bind.value) and not _asks_only_whether(bind)
        }
        default = (declared or {}).get("default")
        type_ = type_of(declared, uses)
        if any(_has_default(part) for part in ((declared or {}).get("properties") or {}).values()):
            raise NotAFunction(f"Properties of the input {name!r} have defaults, which a function does not fill in.")
        kind = declared["type"] if declared and type_ == "jsonb" and declared["type"] in ("object", "array") else None
        allowed = (declared or {}).get("enum") or None
        required = default is None and name not in optional
        description = (declared or {}).get("description")
        found.append(Parameter(source.names[name], name, type_, required, default, kind, allowed, description))
    return tuple(sorted(found, key=lambda parameter: not parameter.required))


def _asks_only_whether(bind: Bind) -> bool:
    return bind.name.endswith("_given")


def _has_default(part: Mapping[str, Any]) -> bool:
    return part.get("default") is not None or any(map(_has_default, (part.get("properties") or {}).values()))
