"""Searches without a retriever: POST /v1/features/search, and /v1/documents/search as the official client sends it."""

from dataclasses import replace
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, post
from litestar.datastructures import State
from litestar.params import JSONBody

from app.api.execution import Shown, check_size, run_adhoc
from app.api.execution_page import Paged
from app.api.wire import Input, Json, NotOffered, RuntimeDep
from app.domain.retrieving import adhoc
from app.domain.retrieving.adhoc import ANY_INDEX
from app.domain.retrieving.execution import Execution
from app.domain.retrieving.windows import Window
from app.domain.runtime import Runtime
from app.errors import InvalidRequest, Problem, Problems

AnyRequest = Request[Any, Any, State]
# What each mode of these routes is called in a stage.
MODES = {"text": "text", "vector": "vector", "image": "content", "url": "content", "content": "content"}


class FeatureQuery(Input, frozen=True, kw_only=True):
    """What is searched for: `text`, a `vector` that you computed, or an image by its `url`, or as a data URI or base64
    (`image`)."""

    input_mode: str = "text"
    text: str | None = None
    vector: Any = None
    value: Any = None
    url: str | None = None
    image: str | None = None

    def content(self, problems: Problems) -> Any:
        mode = self.input_mode
        if mode not in MODES:
            message = f"There is no input_mode {mode!r}; use one of {', '.join(MODES)}."
            problems.add(("body", "query", "input_mode"), "not_offered", message)
            return None
        content = getattr(self, mode) if mode != "content" else None
        content = content if content is not None else self.value
        if content is None:
            needed = "value" if mode == "content" else mode
            problems.add(("body", "query"), "bad_query", f"A query of input_mode {mode!r} needs `{needed}`.")
        return content


class FeatureSearchInput(Input, frozen=True, kw_only=True):
    """One search in one index; without `feature_uri`, text is searched in the first index with a service."""

    query: FeatureQuery
    feature_uri: str = ANY_INDEX
    top_k: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 25
    filters: Any = None
    collection_identifiers: list[str] | None = None
    collection_ids: list[str] | None = None
    return_vectors: bool = False


class DocumentSearchInput(Paged, frozen=True, kw_only=True):
    """A text to search for, or none: then the documents that the filters keep, in the order of their ids."""

    query: str | FeatureQuery | None = None
    feature_uri: str = ANY_INDEX
    filters: Any = None
    collection_ids: list[str] | None = None
    collection_identifiers: list[str] | None = None
    cursor: str | None = None
    top_k: Annotated[int, msgspec.Meta(ge=1)] = 100
    return_vectors: bool = False
    sort: NotOffered = None
    search: NotOffered = None
    select: NotOffered = None
    expand: NotOffered = None
    return_presigned_urls: NotOffered = False


@post(
    "/features/search",
    dto=Json[FeatureSearchInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="feature_search",
)
async def search_features(
    request: AnyRequest, runtime: RuntimeDep, data: JSONBody[FeatureSearchInput]
) -> Response[dict[str, Any]]:
    """Search one index, without a retriever."""
    window = Window(size=data.top_k, most=max(data.top_k, runtime.settings.max_result_page))
    return await _search(request, runtime, data, data.query, window, [])


@post(
    "/documents/search",
    dto=Json[DocumentSearchInput],
    return_dto=None,
    status_code=200,
    scope="read",
    operation_id="search_documents",
)
async def search_documents(
    request: AnyRequest, runtime: RuntimeDep, data: JSONBody[DocumentSearchInput | None] = None
) -> Response[dict[str, Any]]:
    """Search documents for a text, or list those that filters keep."""
    given = data or DocumentSearchInput()
    problems, warnings = Problems(), list[str]()
    window = given.window(runtime.settings, problems, warnings)
    problems.refuse()
    if given.cursor and given.pagination is None:
        window = replace(window, token=given.cursor)
    query = FeatureQuery(text=given.query) if isinstance(given.query, str) else given.query
    return await _search(request, runtime, given, query, window, warnings)


async def _search(
    request: AnyRequest,
    runtime: Runtime,
    given: FeatureSearchInput | DocumentSearchInput,
    query: FeatureQuery | None,
    window: Window,
    warnings: list[str],
) -> Response[dict[str, Any]]:
    collections = given.collection_identifiers or given.collection_ids or []
    pipeline, inputs = adhoc.everything(collections), dict[str, Any]()
    if query is not None:
        problems = Problems()
        inputs = {"query": query.content(problems)}
        await check_size(request, runtime, inputs, problems)
        problems.refuse()
        # The query is an input: what has one shape shares a plan, and braces in a text are no template.
        asked = {"input_mode": MODES[query.input_mode], "value": "{{INPUT.query}}"}
        search = {"feature_uri": given.feature_uri, "query": asked, "top_k": given.top_k}
        pipeline = adhoc.one_search(search, collections)
    wanted = Execution(inputs, given.filters, window, given.return_vectors)
    results = runtime.settings.legacy_results
    try:
        return await run_adhoc(request, runtime, pipeline, wanted, Shown(warnings, results=results))
    except InvalidRequest as error:
        raise InvalidRequest([_as_sent(problem) for problem in error.problems], **error.details) from None


def _as_sent(problem: Problem) -> Problem:
    """The problem at its place in the body that was sent, not in the pipeline that was made of it."""
    match problem.location:
        case ("body", "inputs", "query", *rest):
            return replace(problem, location=("body", "query", *rest))
        case ("body", "stages", 0, "config", "parameters", "searches", 0, *rest):
            return replace(problem, location=("body", *rest))
        case ("body", "stages", 0, "config", "parameters", "final_top_k"):
            return replace(problem, location=("body", "top_k"))
    return problem


router = Router("/", route_handlers=[search_features, search_documents], tags=["Search"])
