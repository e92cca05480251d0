"""Holds every answer to what the OpenAPI document of its server declares: status, content type, schema."""

import json
import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

PARAMETER = re.compile(r"\\{[^}]*\}")
# What ids or names that may hold slashes are of.
WITH_SLASHES = ("documents", re.escape("vector-indexes"), re.escape("vector-mappings"))
# Of requests that no operation is declared for.
NOT_AN_OPERATION = {404, 405}
# Of those of the public API that this server does not have, among them paths below a retriever's or document's id.
NOT_OFFERED = 501


@cache
def document(root: str) -> dict[str, Any]:
    """The document of the server at this address."""
    found: dict[str, Any] = httpx.get(f"{root}/openapi.json").raise_for_status().json()
    return found


@cache
def _paths(root: str) -> list[tuple[re.Pattern[str], str]]:
    """The paths as patterns, those with the fewest parameters first."""
    found = []
    for path in sorted(document(root)["paths"], key=lambda path: (path.count("{"), -len(path))):
        pattern = PARAMETER.sub("[^/]+", re.escape(path))
        for resource in WITH_SLASHES:
            pattern = pattern.replace(f"/{resource}/[^/]+", f"/{resource}/.+")
        found.append((re.compile(pattern), path))
    return found


@cache
def _validator(root: str, path: str, method: str, status: str, media: str) -> Any:
    schema = document(root)["paths"][path][method]["responses"][status]["content"][media].get("schema", {})
    return jsonschema_rs.validator_for({**schema, "components": document(root)["components"]})


def check(answer: httpx.Response) -> None:
    """Fail unless the answer is declared. Hooked into the client of every test of the API."""
    root = str(answer.request.url.copy_with(path="/", query=None)).rstrip("/")
    answer.read()
    held(root, answer.request.method, answer.request.url.path, answer.status_code, answer.headers, answer.content)


def held(root: str, method: str, path: str, status: int, headers: Any, content: bytes) -> None:
    item = document(root)["paths"]
    asked = next(
        (
            name
            for pattern, name in _paths(root)
            if method.lower() in item[name] and pattern.fullmatch(path.rstrip("/"))
        ),
        None,
    )
    said = f"{method} {path}: {status}"
    if status == NOT_OFFERED:
        assert json.loads(content)["error"]["code"] == "not_offered", said
        return
    if asked is None:
        assert status in NOT_AN_OPERATION or path.startswith(("/docs", "/openapi.json")), f"{said} is no operation"
        return
    responses = item[asked][method.lower()]["responses"]
    assert str(status) in responses, f"{said} is not declared, only {', '.join(responses)}"
    media = headers.get("content-type", "").partition(";")[0]
    declared = responses[str(status)].get("content", {})
    assert media in declared or (not content and not declared), f"{said}: {media!r} is not declared"
    if media == "application/json":
        validator = _validator(root, asked, method.lower(), str(status), media)
        errors = [
            f"{'.'.join(map(str, e.instance_path))}: {e.message}" for e in validator.iter_errors(json.loads(content))
        ]
        assert errors == [], f"{said} is not as declared: {errors[:5]}"
