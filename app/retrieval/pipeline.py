"""A stored pipeline, decoded: JSON → checked stages in their envelopes. What is wrong is gathered, not raised."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Literal, get_args

import msgspec

from app.errors import Problems
from app.retrieval import templates
from app.retrieval.catalog import Catalog
from app.retrieval.stages import REGISTRY
from app.retrieval.stages.base import Check, HostStage, Limits, Location, SqlStage, Stage, StageType

ENVELOPE = frozenset(
    {"stage_name", "stage_type", "config", "batch_size", "description", "on_error", "output_alias", "parameters"}
)
CONFIG = frozenset({"stage_id", "parameters", "pre_filters", "post_filters"})


@dataclass(frozen=True, slots=True)
class Step:
    """A stage with its envelope."""

    name: str
    stage: Stage
    on_error: Literal["skip", "error"] = "error"
    alias: str | None = None  # its rows are CONTEXT.<alias> to the host stages after it
    post_filters: Any = None  # what its rows must satisfy, too


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive steps that are one statement, or one step that runs on the host; `first` counts from 0."""

    first: int
    steps: tuple[Step, ...]

    @property
    def host(self) -> HostStage | None:
        stage = self.steps[0].stage
        return stage if isinstance(stage, HostStage) else None

    @property
    def sql(self) -> list[tuple[Step, SqlStage]]:
        return [(step, step.stage) for step in self.steps if isinstance(step.stage, SqlStage)]


@dataclass(frozen=True)
class Pipeline:
    """The stages of a retriever, decoded; templates stand where values will be."""

    steps: tuple[Step, ...]
    input_names: frozenset[str]

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(step.stage for step in self.steps)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The runs of SQL stages and the host stages between them; an alias ends a run, for its rows are kept."""
        runs: list[Segment] = []
        numbers = list(enumerate(self.steps))
        for on_host, group in groupby(numbers, key=lambda pair: isinstance(pair[1].stage, HostStage)):
            run: list[tuple[int, Step]] = []
            for number, step in group:
                run.append((number, step))
                if on_host or step.alias:
                    runs.append(Segment(run[0][0], tuple(step for _, step in run)))
                    run = []
            if run:
                runs.append(Segment(run[0][0], tuple(step for _, step in run)))
        return tuple(runs)

    @property
    def named_rows(self) -> int | None:
        """The number of rows that the pipeline names: the last of its stages that bounds them."""
        return next((most for stage in reversed(self.stages) if (most := stage.most_rows()) is not None), None)


def parse_pipeline(raw: Any, limits: Limits, problems: Problems, location: Location = ("body", "stages")) -> Pipeline:
    """Decode the envelope and parameters of every stage; what is wrong is added to `problems`."""
    if not isinstance(raw, list) or not 1 <= len(raw) <= limits.stages:
        problems.add(location, "bad_stages", f"`stages` is a list of 1 to {limits.stages} stages.")
        return Pipeline((), frozenset())
    steps, names = [], frozenset[str]()
    for n, envelope in enumerate(raw):
        step, read = _parse_step(envelope, (*location, n), problems)
        names |= read
        steps += [step] if step is not None else []
    return Pipeline(tuple(steps), names)


def _parse_step(envelope: Any, here: Location, problems: Problems) -> tuple[Step | None, frozenset[str]]:
    config = envelope.get("config") if isinstance(envelope, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("parameters", {}), dict):
        message = 'A stage is {"stage_name": …, "config": {"stage_id": …, "parameters": {…}}}.'
        problems.add(here, "bad_stage", message)
        return None, frozenset()
    stage_id = config.get("stage_id")
    kind = REGISTRY.get(stage_id) if isinstance(stage_id, str) else None
    if kind is None:
        message = f"No stage {stage_id!r}; the stages are {', '.join(REGISTRY)}."
        problems.add((*here, "config", "stage_id"), "unknown_stage", message)
        return None, frozenset()
    _check_envelope(envelope, config, kind, here, problems)
    parts = {name: config.get(name) for name in ("parameters", "pre_filters", "post_filters")}
    parts["parameters"] = {**kind.defaults, **(parts["parameters"] or {})}
    lifted = templates.lift(parts, (*here, "config"), problems, scopes=kind.scopes)
    names = templates.input_names(lifted)
    parameters = dict(lifted["parameters"] or {})
    if lifted["pre_filters"] and "filters" in kind.__struct_fields__:
        parameters["filters"] = lifted["pre_filters"]
    stage = _decode(kind, parameters, (*here, "config", "parameters"), problems)
    if stage is None:
        return None, names
    name = str(envelope.get("stage_name") or stage_id)
    on_error: Literal["skip", "error"] = "skip" if envelope.get("on_error") == "skip" else "error"
    alias = envelope.get("output_alias") or None
    return Step(name, stage, on_error, alias, lifted["post_filters"] or None), names


def _check_envelope(
    envelope: dict[str, Any], config: dict[str, Any], kind: type[Stage], here: Location, problems: Problems
) -> None:
    for known, given, at in ((ENVELOPE, envelope, here), (CONFIG, config, (*here, "config"))):
        for name in sorted(map(str, given.keys() - known)):
            what = "A stage" if given is envelope else "`config`"
            problems.add((*at, name), "extra_forbidden", f"{what} has no {name!r}; it has {', '.join(sorted(known))}.")
    stage_type = envelope.get("stage_type")
    if stage_type is not None and stage_type not in (*get_args(StageType), "group"):
        problems.add((*here, "stage_type"), "bad_stage", f"No stage_type {stage_type!r}.")
    if envelope.get("on_error") not in (None, "skip", "error"):
        problems.add((*here, "on_error"), "bad_stage", "`on_error` is skip or error.")
    alias = envelope.get("output_alias")
    if alias and not (isinstance(alias, str) and alias.isidentifier() and len(alias) <= 64):
        message = "`output_alias` is a name of letters, digits and `_`, 64 at most."
        problems.add((*here, "output_alias"), "bad_stage", message)
    if config.get("pre_filters") and "filters" not in kind.__struct_fields__:
        message = f"The stage {kind.stage_id!r} takes no pre_filters; put an attribute_filter stage before it."
        problems.add((*here, "config", "pre_filters"), "not_offered", message)
    if config.get("post_filters") and not issubclass(kind, SqlStage):
        message = f"The stage {kind.stage_id!r} takes no post_filters; put an attribute_filter stage after it."
        problems.add((*here, "config", "post_filters"), "not_offered", message)


def _decode(stage: type[Stage], parameters: dict[str, Any], here: Location, problems: Problems) -> Stage | None:
    for alias, name in stage.aliases.items():
        if alias in parameters:
            if parameters.get(name) is not None:
                message = f"{alias} is another name of {name}; give one."
                problems.add((*here, alias), "bad_parameter", message)
            parameters[name] = parameters.pop(alias)
    # The generated client's models say "null" where nothing is given.
    missing = sorted(name for name in stage.not_offered if parameters.get(name) not in (None, "null"))
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
    for n, step in enumerate(pipeline.steps):
        here = (*location, n, "config", "parameters")
        check = Check(catalog, limits, problems, here)
        step.stage.check(check)
        if step.post_filters:
            Check(catalog, limits, problems, here[:-1]).filter(step.post_filters, "post_filters")
    _check_order(pipeline.steps, catalog, problems, location)


def _check_order(steps: Sequence[Step], catalog: Catalog, problems: Problems, location: Location) -> None:
    if steps and isinstance(steps[0].stage, HostStage) and not steps[0].stage.finds:
        message = f"{steps[0].stage.stage_id} works on documents: put a stage before it that finds some."
        problems.add((*location, 0), "needs_documents", message)
    searching = [n for n, step in enumerate(steps) if step.stage.stage_id == "feature_search"]
    if catalog.mode == "standalone" and len(searching) > 1:
        message = (
            "A standalone namespace takes one feature_search stage (with several `searches` and `fusion`); "
            "promotion to a managed namespace allows more."
        )
        problems.add((*location, searching[1]), "one_search_stage", message)
    aliases = [step.alias for step in steps if step.alias]
    for n, step in enumerate(steps):
        if step.alias and aliases.count(step.alias) > 1:
            message = f"More than one stage has the output_alias {step.alias!r}."
            problems.add((*location, n, "output_alias"), "duplicate_name", message)
