"""Every error as the one envelope: the table from domain errors to HTTP, and from the driver's errors to ours."""

import logging
from http import HTTPStatus
from typing import Any

import psycopg
from litestar import Request, Response
from litestar.exceptions import HTTPException
from sqlalchemy.exc import DBAPIError

from app.api.not_offered import feature_of
from app.errors import (
    Conflict,
    ExtractionFailed,
    Forbidden,
    InferenceUnavailable,
    InvalidRequest,
    NotFound,
    NotOffered,
    PgretrieveError,
    Problem,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)

log = logging.getLogger(__name__)
# In the body alone: as a header it makes urllib3 retry beneath the clients that retry themselves.
RETRY_AFTER_S = 1

STATUS: dict[type[PgretrieveError], tuple[int, str]] = {
    InvalidRequest: (422, "ValidationError"),
    Unauthorized: (401, "UnauthorizedError"),
    Forbidden: (403, "ForbiddenError"),
    NotFound: (404, "NotFoundError"),
    Conflict: (409, "ConflictError"),
    TooLarge: (413, "PayloadTooLargeError"),
    TooManyRequests: (429, "TooManyRequestsError"),
    ExtractionFailed: (422, "ValidationError"),
    NotOffered: (501, "NotImplementedError"),
    Unavailable: (503, "ServiceUnavailableError"),
}
HTTP_TYPES = {
    400: "BadRequestError",
    401: "UnauthorizedError",
    403: "ForbiddenError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    413: "PayloadTooLargeError",
    429: "TooManyRequestsError",
    500: "InternalServerError",
}
FAULT = "Something went wrong on our side; the server's log has the details."
# Resources whose ids stand where the public API has a path of its own, such as /retrievers/typeahead.
NAMED_IN_PATHS = ("retriever", "document")


def envelope(status: int, kind: str, code: str, message: str, details: dict[str, Any] | None = None) -> Response[Any]:
    """`{"success": false, "status", "error": {"message", "type", "code", "details"}}`."""
    error = {"message": message, "type": kind, "code": code, "details": details or {}}
    return Response({"success": False, "status": status, "error": error}, status_code=status)


def from_domain(request: Request[Any, Any, Any], error: PgretrieveError) -> Response[Any]:
    named = isinstance(error, NotFound) and error.details["resource"] in NAMED_IN_PATHS
    if named and (absent := _not_offered(request)) is not None:
        return absent
    status, kind = _status(error)
    return envelope(status, kind, error.error_code, error.message, _details(error))


def error_of(error: Exception, place: tuple[str | int, ...]) -> dict[str, Any]:
    """The error of one part of a request, as the envelope would show it; what nobody expected is raised again."""
    known = error if isinstance(error, PgretrieveError) else _from_database(error)
    if known is None:
        raise error
    status, kind = _status(known)
    details = _details(known)
    for problem in details.get("validation_errors", ()):
        problem["location"][1:1] = place
    return {"status": status, "message": known.message, "type": kind, "code": known.error_code, "details": details}


def any_error_of(error: Exception) -> dict[str, Any]:
    """The same for an error that nobody is left to catch; the log has what nobody expected."""
    try:
        return error_of(error, ())
    except Exception:
        log.error("an execution failed", exc_info=error)
        return {"status": 500, "message": FAULT, "type": HTTP_TYPES[500], "code": "internal_error", "details": {}}


def _status(error: PgretrieveError) -> tuple[int, str]:
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def _details(error: PgretrieveError) -> dict[str, Any]:
    details = dict(error.details)
    if isinstance(error, InvalidRequest):
        details["validation_errors"] = [
            {"type": problem.code, "location": list(problem.location), "message": problem.message}
            for problem in error.problems
        ]
    if isinstance(error, Unavailable):
        # A service mostly lacks what only its operator can give; the database comes back by itself.
        details.setdefault("retryable", not isinstance(error, InferenceUnavailable))
        if details["retryable"]:
            details.setdefault("retry_after_seconds", RETRY_AFTER_S)
    return details


def from_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """The framework's own errors: no such route, a wrong method, a body that is too large, a bad parameter."""
    status = error.status_code
    if status in (404, 405) and (absent := _not_offered(request)) is not None:
        return absent
    kind = HTTP_TYPES.get(status, HTTPStatus(status).phrase.replace(" ", "") + "Error")
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    message = {
        404: f"There is no {request.method} {request.url.path}.",
        405: f"{request.url.path} does not take {request.method}.",
        413: "The request body is larger than this server takes (PGRETRIEVE_MAX_BODY_BYTES).",
    }.get(status, error.detail)
    extra = error.extra if isinstance(error.extra, list) else []
    problems = [
        {
            "type": "bad_parameter",
            "location": [_source(item.get("source")), str(item.get("key", ""))],
            "message": str(item.get("message", "")),
        }
        for item in extra
        if isinstance(item, dict)
    ]
    response = envelope(status, kind, code, message, {"validation_errors": problems} if problems else None)
    response.headers.update(error.headers or {})
    return response


def _not_offered(request: Request[Any, Any, Any]) -> Response[Any] | None:
    """The answer to an operation that the public API has and this server has not."""
    feature = feature_of(request.url.path)
    if feature is None:
        return None
    operation = f"{request.method} {request.url.path}"
    return from_domain(request, NotOffered(feature.message, operation=operation, feature=feature.name, retryable=False))


def _source(given: Any) -> str:
    return str(getattr(given, "value", given or "query"))


def from_driver(error: psycopg.Error) -> PgretrieveError | None:
    """What the database's error means to a caller; None for what should not happen."""
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return Conflict("Another transaction holds the lock that this needs; try again.", code="locked", retryable=True)
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        message = "The namespace was deleted or changed while this ran; try again. (An adopted table: was it dropped?)"
        return Conflict(message, code="changing", retryable=True)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        message = f"The service's role lacks a right: {_first(error)}. Its owner grants SELECT on an adopted table."
        return Unavailable(message, code="no_privilege", retryable=False)
    if isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
        return Unavailable("This request met another one and was rolled back; try again.", code="collision")
    if isinstance(error, psycopg.errors.QueryCanceled):
        message = (
            "The statement took longer than PGRETRIEVE_STATEMENT_TIMEOUT_MS, or than the max_time_ms of the "
            "retriever's budget_limits; narrow the request."
        )
        return Unavailable(message, code="statement_timeout", retryable=False)
    if isinstance(error, psycopg.errors.InvalidRegularExpression):
        return InvalidRequest(
            [Problem(("body", "filters"), "bad_regex", f"Not a regular expression: {_first(error)}.")]
        )
    if isinstance(error, psycopg.errors.StatementTooComplex | psycopg.DataError):
        return InvalidRequest([Problem(("body",), "bad_value", f"The database refuses a value: {_first(error)}.")])
    if isinstance(error, psycopg.errors.OperationalError):
        return Unavailable("The database does not answer; try again.", code="database_unavailable")
    return None


def _first(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error)).splitlines()[0]


def _from_database(error: Exception) -> PgretrieveError | None:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return from_driver(cause) if isinstance(cause, psycopg.Error) else None


def from_anything(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    known = _from_database(error)
    if known is not None:
        return from_domain(request, known)
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return envelope(500, "InternalServerError", "internal_error", FAULT)


HANDLERS: dict[Any, Any] = {
    PgretrieveError: from_domain,
    HTTPException: from_http,
    Exception: from_anything,
}
