"""What an executed plan tells of itself, in words: an index left aside, rows that were missed, work for nothing.

Pure: it reads the JSON of `EXPLAIN (ANALYZE, BUFFERS)` beside the stages that the statement was compiled from.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.retrieval.catalog import Catalog, VectorConfig
from app.retrieval.pipeline import Segment
from app.retrieval.searches.search import Search
from app.retrieval.stages.feature_search import FeatureSearch

# Below it, nothing that a plan does is worth a word.
MANY_ROWS = 1_000
# An estimate that is this many times off may have led to the wrong plan.
FAR_OFF = 10
MOST_ESTIMATES = 3
CTE = re.compile(r"CTE (s\d+)_")
NOT_NULL = re.compile(r"\(?[\w.\"]+ IS NOT NULL\)?")
Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a statement: a stable code, what it means, and the stage where that is known."""

    code: str
    severity: Literal["info", "warning"]
    message: str
    stage: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """A node of a plan, the prefix of the stage that it belongs to where it is known, and the nodes above it."""

    node: Node
    prefix: str | None
    above: tuple[Node, ...]

    @property
    def rows(self) -> int:
        """What it answered, in all its loops."""
        return int(self.node.get("Actual Rows", 0) * self.node.get("Actual Loops", 1))

    @property
    def removed(self) -> int:
        return int(self.node.get("Rows Removed by Filter", 0) * self.node.get("Actual Loops", 1))

    def within(self, kind: str) -> "Node | None":
        """The nearest node above it of this kind."""
        return next((node for node in reversed(self.above) if node["Node Type"] == kind), None)


@dataclass(frozen=True, slots=True)
class Statement:
    """An executed statement: its stages, what they told, and how many documents the namespace has."""

    segment: Segment
    catalog: Catalog
    told: Mapping[str, Mapping[str, Any]]
    documents: int

    def name_of(self, prefix: str | None) -> str | None:
        number = int(prefix[1:]) - 1 - self.segment.first if prefix else -1
        return self.segment.steps[number].name if 0 <= number < len(self.segment.steps) else None

    def told_of(self, prefix: str, number: int) -> Mapping[str, Any]:
        """What a search told: how it ran, and why."""
        searches = self.told.get(prefix, {}).get("searches", ())
        return next((told for told in searches if told.get("search") == number), {})

    def searches(self) -> Iterator[tuple[str, int, Search, VectorConfig]]:
        """Every search: the prefix of its stage, its number from 1, and its index."""
        for number, (_, stage) in enumerate(self.segment.sql, start=self.segment.first + 1):
            for n, search in enumerate(stage.searches if isinstance(stage, FeatureSearch) else (), start=1):
                if (config := search.config(self.catalog)) is not None:
                    yield f"s{number}", n, search, config


def findings(statement: Statement, explained: Mapping[str, Any]) -> list[Finding]:
    """Everything worth a word about an executed statement, the graver first."""
    nodes = list(_walk(explained["Plan"]))
    found = [
        *_searches(statement, nodes),
        *_filters(statement, nodes),
        *_spills(statement, nodes),
        *_estimates(statement, nodes),
        *_compiling(explained),
    ]
    return sorted(found, key=lambda finding: finding.severity, reverse=True)


def _walk(node: Node, prefix: str | None = None, above: tuple[Node, ...] = ()) -> Iterator[Placed]:
    named = CTE.match(node.get("Subplan Name", ""))
    prefix = named[1] if named else prefix
    yield Placed(node, prefix, above)
    for child in node.get("Plans", ()):
        yield from _walk(child, prefix, (*above, node))


def _searches(statement: Statement, nodes: Sequence[Placed]) -> Iterator[Finding]:
    for prefix, number, search, config in statement.searches():
        stage, name = statement.name_of(prefix), search.feature_uri
        about = {"search": number, "index": config.index_name}
        if search.lexical or config.kind != "dense" or config.index_method == "exact":
            continue
        if config.index_state != "ready":
            message = f"The index of {name!r} is {config.index_state}: until it is ready, its searches are exact."
            yield Finding("index_not_ready", "warning", message, stage, about)
            continue
        scans = [placed for placed in nodes if placed.node.get("Index Name") == config.index_name]
        if scans:
            yield from _missed(statement, search, scans[min(number, len(scans)) - 1], stage, about)
            continue
        read = max((placed.rows + placed.removed for placed in nodes if _reads_documents(placed, statement)), default=0)
        plan = statement.told_of(prefix, number)
        chosen = plan.get("plan") == "exact"
        why = "as was chosen for it" if chosen else "for PostgreSQL did not use its vector index"
        if chosen and plan.get("estimated") is not None:
            why += f", since its filter was thought to keep {plan['estimated']:,} documents"
        message = f"The search of {name!r} is exact, {why}; {read:,} documents were read."
        grave = read >= MANY_ROWS and not chosen
        yield Finding("index_not_used", "warning" if grave else "info", message, stage, about)


def _missed(
    statement: Statement, search: Search, scan: Placed, stage: str | None, about: Mapping[str, Any]
) -> Iterator[Finding]:
    """Fewer rows than asked for, though the index was not read to its end."""
    limit = scan.within("Limit")
    returned = round((limit or scan.node).get("Actual Rows", 0))
    read = scan.rows + scan.removed
    if returned >= search.top_k or read >= statement.documents:
        return
    message = (
        f"The search of {search.feature_uri!r} found {returned:,} of the {search.top_k:,} rows that it asks for, "
        f"though its index was read only to {read:,} of {statement.documents:,} documents: more may be there. "
        "Ask for exactness (`exact`), or declare a payload index that serves the filter."
    )
    yield Finding("under_return", "warning", message, stage, {**about, "asked": search.top_k, "returned": returned})


def _reads_documents(placed: Placed, statement: Statement) -> bool:
    node = placed.node
    return node.get("Relation Name") == "documents" and node.get("Schema", statement.catalog.schema) == (
        statement.catalog.schema
    )


def _filters(statement: Statement, nodes: Sequence[Placed]) -> Iterator[Finding]:
    for placed in nodes:
        condition = placed.node.get("Filter", "")
        # A scan of the primary key reads everything too, in order; one of a vector index is a search.
        if (
            not condition
            or NOT_NULL.fullmatch(condition)
            or {"Index Cond", "Recheck Cond", "Order By"} & placed.node.keys()
        ):
            continue
        if not _reads_documents(placed, statement) or placed.removed < MANY_ROWS:
            continue
        severity: Literal["info", "warning"] = "warning" if placed.removed > FAR_OFF * placed.rows else "info"
        message = (
            f"A filter read {placed.rows + placed.removed:,} documents to keep {placed.rows:,}: no index serves it. "
            "Declare a payload index of the fields that it names."
        )
        yield Finding("unindexed_filter", severity, message, statement.name_of(placed.prefix), {"filter": condition})


def _spills(statement: Statement, nodes: Sequence[Placed]) -> Iterator[Finding]:
    for placed in nodes:
        node = placed.node
        kind = node["Node Type"]
        sorted_on_disk = node.get("Sort Space Used", 0) if node.get("Sort Space Type") == "Disk" else 0
        batches = node.get("Hash Batches", 1) > 1 or node.get("HashAgg Batches", 1) > 1
        if sorted_on_disk or batches:
            kilobytes = sorted_on_disk or node.get("Disk Usage", 0)
            size = f" ({kilobytes:,} kB)" if kilobytes else ""
            message = (
                f"{kind} did not fit in memory and wrote to disk{size}: raise work_mem, or narrow what it takes in."
            )
            yield Finding(
                "sort_spilled", "warning", message, statement.name_of(placed.prefix), {"kilobytes": kilobytes}
            )


def _estimates(statement: Statement, nodes: Sequence[Placed]) -> Iterator[Finding]:
    off = {id(placed.node): ratio for placed in nodes if (ratio := _off(placed)) >= FAR_OFF}
    # An error that came up from below is told where it arose.
    sources = [
        placed
        for placed in nodes
        if id(placed.node) in off and not any(id(child) in off for child in placed.node.get("Plans", ()))
    ]
    for placed in sorted(sources, key=lambda placed: -off[id(placed.node)])[:MOST_ESTIMATES]:
        node = placed.node
        of = f" of {node['Relation Name']}" if "Relation Name" in node else ""
        expected, found = round(node["Plan Rows"]), round(node["Actual Rows"])
        message = (
            f"PostgreSQL expected {expected:,} rows of a {node['Node Type']}{of} and found {found:,}: run ANALYZE, or "
            "declare a payload index, whose statistics it uses."
        )
        details = {"expected": expected, "found": found}
        yield Finding("bad_estimate", "info", message, statement.name_of(placed.prefix), details)


def _off(placed: Placed) -> float:
    node = placed.node
    expected, found = node.get("Plan Rows", 0), node.get("Actual Rows", 0)
    ended_early = found < expected and placed.within("Limit") is not None
    if not node.get("Actual Loops") or ended_early or max(expected, found) < MANY_ROWS:
        return 1
    return float(max(expected, found) / max(min(expected, found), 1))


def _compiling(explained: Mapping[str, Any]) -> Iterator[Finding]:
    spent = explained.get("JIT", {}).get("Timing", {}).get("Total", 0)
    if spent > explained.get("Execution Time", 0) / 2:
        message = f"PostgreSQL spent {spent:.0f} ms on compiling the statement to machine code; set jit = off."
        yield Finding("jit", "warning", message)
