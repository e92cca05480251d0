"""Who asks, what they may do, and which namespaces exist for them.

The edge says once, for each request, who asks (`enter`). Where identifiers of namespaces are resolved, those that
the caller may not see are left out (`visible`): so a hidden namespace answers as one that is not there, in every
function and whatever was cached. What no request began (commands, jobs) sees all of them.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime

from app.errors import Forbidden
from app.retrieval.catalog import Catalog

SCOPES = {
    "read": "search, execute retrievers; get and list what is there",
    "write": "upsert, change and delete documents and what they come from",
    "manage": "create, change, promote and delete namespaces; store, change and delete retrievers",
    "admin": "API keys, inference services: what concerns the whole server",
}
EVERYTHING = "*"
READING = "read"
# What concerns the whole server is not for keys that shall know only a part of it.
WHOLE_SERVER = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from: the key's id (never the key), what it may do, where (None is everywhere), and
    how many requests a minute it has (None is what the settings say). With a `principal_id` it reads only documents
    whose access list lets that principal read."""

    key_id: str
    scopes: frozenset[str]
    namespaces: frozenset[str] | None = None
    expires_at: datetime | None = None
    rate_limit: int | None = None
    name: str = ""
    principal_id: str | None = None

    def may(self, scope: str) -> bool:
        if scope == WHOLE_SERVER and self.namespaces is not None:
            return False
        return scope in self.scopes or EVERYTHING in self.scopes

    def require(self, scope: str) -> None:
        if self.may(scope):
            return
        if scope == WHOLE_SERVER and self.namespaces is not None:
            message = "A key that is limited to namespaces may not do this, for it concerns the whole server."
        else:
            message = f"This needs a key with the scope {scope!r}; this one has {', '.join(sorted(self.scopes))}."
        raise Forbidden(message, scope=scope)


_principal: ContextVar[Principal | None] = ContextVar("principal", default=None)


def enter(principal: Principal) -> None:
    """From here to its end this task (a request has its own) acts for the principal."""
    _principal.set(principal)


def principal() -> Principal | None:
    """Who asks; None for what no request began."""
    return _principal.get()


def actor() -> str | None:
    """The id of the key that asks; None for what no request began."""
    principal = _principal.get()
    return None if principal is None else principal.key_id


def visible() -> list[str] | None:
    """The ids of the namespaces that exist for the caller, as a bind; None is all."""
    limited = _limited()
    return None if limited is None else sorted(limited)


def sees(namespace_id: str) -> bool:
    limited = _limited()
    return limited is None or namespace_id in limited


def _limited() -> frozenset[str] | None:
    principal = _principal.get()
    return None if principal is None else principal.namespaces


def restriction() -> Callable[[], list[str]] | None:
    """What a catalog is restricted by that is loaded for the caller; None: nothing."""
    principal = _principal.get()
    return _readers if principal is not None and principal.principal_id is not None else None


def _readers() -> list[str]:
    """Under which names the caller finds documents, asked anew by each statement. Nobody's are no names."""
    principal = _principal.get()
    named = None if principal is None else principal.principal_id
    return [] if named is None else [named, "*"]


def view() -> tuple[str, ...]:
    """What of the caller keys of caches must hold: those who read all share, and so do those who do not."""
    return ("restricted",) if restriction() is not None else ()


def may_use(catalog: Catalog) -> bool:
    """Whether a catalog that was kept is one that would be loaded for the caller."""
    return sees(catalog.namespace_id) and (catalog.readers is None) == (restriction() is None)


def require_creatable(namespace_id: str) -> None:
    """A limited key creates the namespaces of its list only; 403 says nothing of what exists."""
    if not sees(namespace_id):
        message = f"This key is limited to some namespaces; {namespace_id!r} is none of them."
        raise Forbidden(message, code="outside_namespaces")
