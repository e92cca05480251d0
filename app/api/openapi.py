"""The OpenAPI document: what the handlers say of themselves, and what holds for all; and a page to browse it in.

Tests check every answer against it. The page's script comes with a package of ours, so it needs no network.
"""

import copy
import html
from collections.abc import Container, Iterator
from functools import cache
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, Request, get
from litestar.enums import MediaType
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.router import Router
from litestar.static_files import create_static_files_router

from app import __version__
from app.api.audit import AUDITED_SCOPES, LONGEST_REASON, REASON
from app.api.auth import DOCS, OPEN, routes

TITLE = "pgretrieve"
DESCRIPTION = (
    "Multimodal retrieval inside Postgres. Every request under /v1 takes an API key as `Authorization: Bearer …`; "
    "every error has one envelope, whose `code` is stable."
)
# Their paths or bodies name a namespace, or they concern the whole server; all others take `X-Namespace`.
WITHOUT_NAMESPACE = ("/v1/namespaces", "/v1/inference", "/v1/keys", "/v1/organizations")
# They answer events where the request says `stream`.
STREAMING = ("execute_retriever", "execute_adhoc_retriever")
EVENTS = "text/event-stream"
# They answer a text where the request accepts nothing else.
TEXTS = ("get_retriever_sql", "get_retriever_sql_by_post")
ERRORS = (400, 401, 403, 404, 409, 413, 422, 429, 500, 503)
OPEN_ERRORS = (400, 500, 503)
ERROR = "Error"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="{assets}/swagger-ui.css">
<link rel="icon" type="image/png" href="{assets}/favicon-32x32.png">
</head>
<body>
<div id="page"></div>
<script src="{assets}/swagger-ui-bundle.js"></script>
<script>
SwaggerUIBundle({{url: "{docs}/openapi.json", dom_id: "#page", deepLinking: true, filter: true,
                  docExpansion: "none", persistAuthorization: true, validatorUrl: null}});
</script>
</body>
</html>
"""


class Page(OpenAPIRenderPlugin):
    """The page, at /docs."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        return PAGE.format(title=html.escape(TITLE), assets=f"{DOCS}/assets", docs=DOCS).encode()


class Document(JsonRenderPlugin):
    """The document, at /docs/openapi.json."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:  # noqa: ARG002
        return document(request.app)


@get("/openapi.json", media_type=MediaType.JSON, scope=OPEN, include_in_schema=False, sync_to_thread=False)
def openapi_json(request: Request[Any, Any, Any]) -> bytes:
    """The document, where tools look for it first."""
    return document(request.app)


def config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title=TITLE,
        version=__version__,
        description=DESCRIPTION,
        path=DOCS,
        render_plugins=[Page(path="/", media_type=MediaType.HTML), Document(path="/openapi.json")],
        use_handler_docstrings=True,
    )


def assets() -> Router:
    """The page's script and style."""
    spec = find_spec("swagger_ui")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "static"
    return create_static_files_router(f"{DOCS}/assets", [folder], include_in_schema=False)


@cache
def document(app: Litestar) -> bytes:
    changing = {
        handler.operation_id
        for _path, method, handler in routes(app)
        if method != "GET" and handler.opt["scope"] in AUDITED_SCOPES
    }
    return msgspec.json.encode(completed(app.openapi_schema.to_schema(), changing))


def completed(derived: dict[str, Any], changing: Container[Any]) -> dict[str, Any]:
    """The document with what no handler says: errors, the key, the namespace's header, and the reason for a change."""
    schema = copy.deepcopy(derived)
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {})[ERROR] = _error()
    key = {"type": "http", "scheme": "bearer", "description": "An API key of this server."}
    components["securitySchemes"] = {"key": key}
    for path, operation in operations(schema):
        ours = path.startswith("/v1/")
        operation["security"] = [{"key": []}] if ours else []
        _leave_body_out(operation)
        if operation["operationId"] in STREAMING:
            operation["responses"]["200"]["content"][EVENTS] = {"schema": {"type": "string"}}
        if operation["operationId"] in TEXTS:
            operation["responses"]["200"]["content"]["text/plain"] = {"schema": {"type": "string"}}
        for status in ERRORS if ours else OPEN_ERRORS:
            operation["responses"][str(status)] = _refusal(status)
        parameters = operation.setdefault("parameters", [])
        if ours and not path.startswith(WITHOUT_NAMESPACE):
            parameters += _namespace()
        if operation["operationId"] in changing:
            parameters.append(_reason())
        for parameter in parameters:  # the framework spells out defaults
            for name in ("deprecated", "allowEmptyValue", "allowReserved"):
                if parameter.get(name) is False:
                    del parameter[name]
    return schema


def _leave_body_out(operation: dict[str, Any]) -> None:
    """A body that the handler can do without is one that may be missing, not one that may be null."""
    body = operation.get("requestBody", {})
    media = body.get("content", {}).get(MediaType.JSON.value, {})
    options = media.get("schema", {}).get("oneOf", [])
    if {"type": "null"} in options:
        options.remove({"type": "null"})
        media["schema"] = options[0] if len(options) == 1 else {"oneOf": options}
        body["required"] = False


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation of a document, with its path."""
    for path, item in schema["paths"].items():
        for operation in item.values():
            yield path, operation


def _refusal(status: int) -> dict[str, Any]:
    content = {MediaType.JSON.value: {"schema": {"$ref": f"#/components/schemas/{ERROR}"}}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _namespace() -> list[dict[str, Any]]:
    text = {"type": "string"}
    header = "The namespace's id or name. Without it `?namespace=` is read."
    return [
        {"name": "X-Namespace", "in": "header", "required": False, "schema": text, "description": header},
        {
            "name": "namespace",
            "in": "query",
            "required": False,
            "schema": text,
            "description": "The same, in the query.",
        },
    ]


def _reason() -> dict[str, Any]:
    text = {"type": "string", "maxLength": LONGEST_REASON}
    about = "Why this is done, for the audit log."
    return {"name": REASON, "in": "header", "required": False, "schema": text, "description": about}


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    problem = {
        "type": "object",
        "required": ["type", "location", "message"],
        "properties": {
            "type": text,
            "location": {"type": "array", "items": {"type": ["string", "integer"]}},
            "message": text,
        },
    }
    details = {
        "type": "object",
        "properties": {
            "validation_errors": {"type": "array", "items": problem},
            "retryable": {"type": "boolean"},
            "retry_after_seconds": {"type": "number"},
        },
        "additionalProperties": True,
    }
    error = {
        "type": "object",
        "required": ["message", "type", "code", "details"],
        "properties": {"message": text, "type": text, "code": text, "details": details},
    }
    return {
        "type": "object",
        "title": ERROR,
        "description": "What went wrong: a stable `code`, what to do, and every problem that was found.",
        "required": ["success", "status", "error"],
        "properties": {"success": {"const": False}, "status": {"type": "integer"}, "error": error},
    }
