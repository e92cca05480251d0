"""What the official client's `search("text")` sends as stages, which is no stage's shape, as a pipeline of ours.

`{"type": "feature_search", "feature_extractor": {"type": "text"}, "query", "collection_ids", "limit"}`, and before it
where there are filters `{"type": "attribute_filter", "conditions"}`. It names no index: the first with a service is it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.retrieving.adhoc import ANY_INDEX, Pipeline, one_search
from app.errors import Problems

SEARCH_KEYS = {"type", "feature_extractor", "query", "collection_ids", "limit"}
FILTER_KEYS = {"type", "conditions"}
EXAMPLE = '{"stage_name": …, "config": {"stage_id": …, "parameters": {…}}}'
DEFAULT_LIMIT = 10


def is_sdk_shape(stages: Any) -> bool:
    return (
        isinstance(stages, list)
        and bool(stages)
        and all(isinstance(stage, dict) and "type" in stage and "config" not in stage for stage in stages)
    )


def sdk_pipeline(
    stages: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any], collections: Sequence[str] | None
) -> Pipeline:
    """The pipeline; refuses with every problem what the client does not send."""
    problems = Problems()
    searches = [stage for stage in stages if stage["type"] == "feature_search"]
    for n, stage in enumerate(stages):
        _check(n, stage, problems)
    if len(searches) != 1:
        problems.add(("body", "stages"), "bad_stages", f"This short form has one feature_search; a stage is {EXAMPLE}.")
    problems.refuse()
    search = searches[0]
    query = search["query"]
    # The client sends the text as an input, too: taken from there it is a text, whatever stands in it.
    value = "{{INPUT.query}}" if inputs.get("query") == query else query
    within = [*(collections or ()), *(search.get("collection_ids") or ())]
    filters = [stage["conditions"] for stage in stages if stage["type"] == "attribute_filter"]
    size = search.get("limit") or DEFAULT_LIMIT
    text = {"feature_uri": ANY_INDEX, "query": {"input_mode": "text", "value": value}, "top_k": size}
    return one_search(text, within, {"AND": filters} if filters else None)


def _check(n: int, stage: Mapping[str, Any], problems: Problems) -> None:
    here = ("body", "stages", n)
    known = {"feature_search": SEARCH_KEYS, "attribute_filter": FILTER_KEYS}.get(str(stage["type"]))
    if known is None:
        problems.add((*here, "type"), "bad_stage", f"A stage is {EXAMPLE}.")
        return
    for key in sorted(stage.keys() - known):
        problems.add((*here, key), "extra_forbidden", f"The short form has no {key!r}; a stage is {EXAMPLE}.")
    if known is FILTER_KEYS:
        if not isinstance(stage.get("conditions"), dict):
            problems.add((*here, "conditions"), "bad_filter", "`conditions` is a filter.")
        return
    if stage.get("feature_extractor", {"type": "text"}) != {"type": "text"}:
        message = "The short form searches text; name other indexes by `feature_uri` in a feature_search stage."
        problems.add((*here, "feature_extractor"), "not_offered", message)
    if not isinstance(stage.get("query"), str):
        problems.add((*here, "query"), "bad_query", "`query` is a text.")
    limit, within = stage.get("limit"), stage.get("collection_ids")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        problems.add((*here, "limit"), "out_of_range", "`limit` is 1 or more.")
    if within is not None and not (isinstance(within, list) and all(isinstance(each, str) for each in within)):
        problems.add((*here, "collection_ids"), "bad_type", "`collection_ids` is a list of texts.")
