"""Searches for a query and for a language model's variations of it, and fuses what was found."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from app.errors import InvalidRequest, Problem, Unavailable
from app.retrieval.host import Host, Row
from app.retrieval.stages.base import Check, StageType
from app.retrieval.stages.feature_search import FeatureSearch
from app.retrieval.stages.hosted import ModelStage, bad_answer, check_text
from app.retrieval.templates import Template, scope_names

DEFAULT_PROMPT = (
    "Write {{NUM_EXPANSIONS}} other search queries that mean the same as this one, with synonyms and related terms, "
    "one a line, and nothing else.\n\n{{QUERY}}"
)
VARIATION = Template("{{INPUT.expanded_query}}")
MAX_QUERY_CHARS = 1_000
DEFAULT_TIMEOUT_MS = 5_000


class QueryExpand(ModelStage, frozen=True, kw_only=True):
    """Ask a language model for `num_expansions` variations of a query, search for each, and fuse the results.

    `feature_search_config` are the parameters of a feature_search; the query is the text of its first text search, and
    every text search of the same text is run for each variation. `rrf` sums 1 / (`rrf_k` + rank) over the queries,
    `linear` takes the mean of the scores (0 where a query did not find the document). `expansion_prompt` may read
    QUERY, NUM_EXPANSIONS and INPUT, and asks for one query a line. Where the model does not answer within
    `expansion_timeout_ms`, or not at all, the original query is searched alone, with a warning. The queries stand in
    the stage's metadata. As a later stage it searches among the rows that it is given.
    """

    stage_id: ClassVar[str] = "query_expand"
    stage_type: ClassVar[StageType] = "filter"
    category: ClassVar[str] = "filter"
    icon: ClassVar[str] = "git-branch"
    use_cases: ClassVar[tuple[str, ...]] = ("Other words than the documents'", "More recall for short queries")
    example: ClassVar[dict[str, Any]] = {
        "num_expansions": 3,
        "feature_search_config": {
            "searches": [{"feature_uri": "text", "query": {"input_mode": "text", "value": "{{INPUT.query}}"}}]
        },
    }
    finds: ClassVar[bool] = True
    scopes: ClassVar[frozenset[str]] = frozenset({"query", "num_expansions", "secret"})
    defaults: ClassVar[dict[str, Any]] = {"expansion_prompt": DEFAULT_PROMPT}
    aliases: ClassVar[dict[str, str]] = {"model": "expansion_model", "model_name": "expansion_model"}

    feature_search_config: dict[str, Any]
    num_expansions: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    expansion_prompt: Any = None
    expansion_model: str | None = None
    include_original: bool = True
    rrf_k: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 60
    fusion_strategy: Literal["rrf", "linear"] = "rrf"
    deduplicate: bool = True
    expansion_timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=5000)] | None = None

    def check(self, check: Check) -> None:
        self.check_model(check)
        check_text(check, "expansion_prompt", self.expansion_prompt)
        if not self.deduplicate:
            check.add("not_offered", "A document is answered once: deduplicate is true.", "deduplicate")
        if scope_names(self.feature_search_config):
            check.add("bad_template", "feature_search_config reads INPUT only.", "feature_search_config")
        try:
            search = self._search()
        except msgspec.ValidationError as error:
            check.add("bad_parameter", f"feature_search_config: {error}.", "feature_search_config")
            return
        inner = (*check.location, "feature_search_config")
        search.check(Check(check.catalog, check.limits, check.problems, inner))
        if self._query(search) is None:
            message = "feature_search_config needs a search by text, whose query is what is expanded."
            check.add("bad_parameter", message, "feature_search_config")

    def most_rows(self) -> int | None:
        return self._search().final_top_k

    async def run(self, rows: list[Row], host: Host) -> list[Row]:
        search = self._search()
        query = host.fill(self._query(search))
        if not isinstance(query, str):
            raise InvalidRequest([Problem(("body", "inputs"), "bad_input", "The query of query_expand is a text.")])
        variations = await self._variations(query, host)
        queries = [query] if self.include_original or not variations else []
        queries += variations
        host.tell("queries", queries)
        varied = self._search(VARIATION)
        source = None if host.first else rows

        async def searched(text: str) -> list[Row]:
            return await host.run([varied], source, {**host.inputs, "expanded_query": text})

        found = await host.each(searched, queries, concurrency=2)
        return self._fused([_or_raise(each) for each in found])[: search.final_top_k]

    def _search(self, text: Any = None) -> FeatureSearch:
        """The search, with another text in the place of the query. Raises `msgspec.ValidationError`."""
        search = msgspec.convert(self.feature_search_config, FeatureSearch)
        query = self._query(search)
        if text is None or query is None:
            return search
        searches = [
            msgspec.structs.replace(each, query={"input_mode": "text", "value": text})
            if _text(each.query) == query
            else each
            for each in search.searches
        ]
        return msgspec.structs.replace(search, searches=searches)

    def _query(self, search: FeatureSearch) -> Any:
        return next((text for each in search.searches if (text := _text(each.query)) is not None), None)

    async def _variations(self, query: str, host: Host) -> list[str]:
        """Other queries than this one; none where the model does not give any."""
        limit_s = (self.expansion_timeout_ms or DEFAULT_TIMEOUT_MS) / 1000
        text = host.fill(self.expansion_prompt, query=query, num_expansions=self.num_expansions)
        prompt = self.asking(host, text, self.expansion_model, temperature=0.7, max_tokens=1_000)
        try:
            answer = await host.chat(prompt, limit_s)
            variations = _lines(answer.text, query)[: self.num_expansions]
            if not variations:
                raise bad_answer("with queries")
        except Unavailable as error:
            host.warn(f"query_expand searched for the original query alone: {error.message}")
            host.tell("expanded", False)
            return []
        host.tell("expanded", True)
        return variations

    def _fused(self, found: list[list[Row]]) -> list[Row]:
        rows: dict[str, Row] = {}
        scores: dict[str, float] = {}
        for ranked in found:
            for rank, row in enumerate(ranked, start=1):
                rows.setdefault(row.document_id, row)
                part = 1 / (self.rrf_k + rank) if self.fusion_strategy == "rrf" else (row.score or 0.0) / len(found)
                scores[row.document_id] = scores.get(row.document_id, 0.0) + part
        for document_id, row in rows.items():
            row.score = scores[document_id]
        return sorted(rows.values(), key=lambda row: (-(row.score or 0.0), row.document_id))


def _text(query: Any) -> Any:
    """The text of a search's query; None where it is none."""
    if isinstance(query, dict):
        return query.get("value", query.get("text")) if query.get("input_mode", "text") == "text" else None
    return query if isinstance(query, str | Template) else None


def _lines(answer: str, query: str) -> list[str]:
    """The queries of an answer: its lines without numbers, dashes and quotes, each once, the original not."""
    lines = (line.strip().lstrip("0123456789.)-*• ").strip("\"' ")[:MAX_QUERY_CHARS] for line in answer.splitlines())
    return list(dict.fromkeys(line for line in lines if line and line != query))


def _or_raise(found: list[Row] | Exception) -> list[Row]:
    if isinstance(found, Exception):
        raise found
    return found
