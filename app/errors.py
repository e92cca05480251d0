"""The tree of domain errors with stable codes. It knows no HTTP: `api/problems.py` gives each class its status.

PgretrieveError
├── InvalidRequest           the request says something that cannot be done: every problem, not the first
├── NotOffered               an operation of the public API that this server does not have
├── Unauthorized             no key, or one that is not known
├── Forbidden                the key may not do this
├── NotFound                 the resource does not exist
├── Conflict                 the state forbids it: a name is taken, a wrong mode, a lock
├── TooLarge                 a body above the limit
├── TooManyRequests          the key has used up its requests of the minute
├── ExtractionFailed         a file, image or row cannot be read, or is beyond a limit
└── Unavailable              something that we depend on does not answer; may pass
    └── InferenceUnavailable an inference service is down, not configured or not installed
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (`("body", "documents", 3, "vectors", "v")`), a stable code, what to do."""

    location: tuple[str | int, ...]
    code: str
    message: str


class PgretrieveError(Exception):
    """Base of all errors that a caller may see."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.details = details


class InvalidRequest(PgretrieveError):
    """The content of the request is refused; nothing of it was done."""

    code = "invalid_request"

    def __init__(self, problems: Sequence[Problem], *, code: str | None = None, **details: Any) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more, see details)" if len(self.problems) > 1 else ""
        super().__init__(first.message + more, code=code or first.code, **details)


class NotOffered(PgretrieveError):
    """An operation of the public API that this server does not have; parameters of this kind are `InvalidRequest`."""

    code = "not_offered"


class Unauthorized(PgretrieveError):
    """No API key, or one that is not known."""

    code = "unauthorized"


class Forbidden(PgretrieveError):
    """The API key does not carry the right that this needs."""

    code = "forbidden"


class NotFound(PgretrieveError):
    """The resource does not exist, or the key may not see it."""

    code = "not_found"

    def __init__(self, resource: str, identifier: str, hint: str = "") -> None:
        message = f"No {resource} {identifier!r}." + (f" {hint}" if hint else "")
        super().__init__(message, resource=resource, id=identifier)


class Conflict(PgretrieveError):
    """The present state forbids this."""

    code = "conflict"


class TooLarge(PgretrieveError):
    """The request's body is larger than this server takes."""

    code = "too_large"


class TooManyRequests(PgretrieveError):
    """The key has sent more requests than it may; the same one passes a little later."""

    code = "rate_limited"


class ExtractionFailed(PgretrieveError):
    """An object's content cannot be made into documents. Unless it is `retryable`, no later try will be better."""

    code = "extraction_failed"

    def __init__(self, message: str, *, code: str, retryable: bool = False, **details: Any) -> None:
        super().__init__(message, code=code, **details)
        self.retryable = retryable


class Unavailable(PgretrieveError):
    """Something this server depends on does not answer; the same request may pass later."""

    code = "unavailable"


class InferenceUnavailable(Unavailable):
    """An inference service is down, or lacks its key, package or weights."""

    code = "inference_unavailable"


@dataclass(slots=True)
class Problems:
    """Collects problems while a request is checked, so that the caller sees them all at once."""

    found: list[Problem] = field(default_factory=list)

    def add(self, location: tuple[str | int, ...], code: str, message: str) -> None:
        self.found.append(Problem(location, code, message))

    def __bool__(self) -> bool:
        return bool(self.found)

    def refuse(self, **details: Any) -> None:
        """Raise `InvalidRequest` when anything was found."""
        if self.found:
            raise InvalidRequest(self.found, **details)
