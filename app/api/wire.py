"""Bodies: decoded strictly by msgspec into structs, each error with its place; and what routes have in common."""

import json
import re
from collections.abc import Generator
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency
from litestar.dto import AbstractDTO
from litestar.dto.data_structures import DTOFieldDefinition
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi.spec import Reference, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.types import Guard
from litestar.typing import FieldDefinition

from app.domain.runtime import Runtime
from app.errors import InvalidRequest, Problem

T = TypeVar("T")
RuntimeDep = NamedDependency[Runtime]
PATH = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\.\.\.)\]")

# The type of a field that the public API documents and this server does not have. Clients send such fields with
# their defaults: that is accepted, for it asks for nothing; anything else is refused by name.
NotOffered = Annotated[
    Any,
    msgspec.Meta(
        description="Not offered by this server: anything but the default is refused.",
        extra={"not_offered": True},
    ),
]


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request body. Unknown keys are refused, with the keys that are accepted."""

    # Whether the handler itself refuses what `decode` found, to report it beside all else that is wrong.
    reports_refused: ClassVar[bool] = False

    def __post_init__(self) -> None:
        names, defaults = _not_offered(type(self))
        given = [getattr(self, name) for name in names]
        if given != defaults:  # else nothing more is done: an upsert has a thousand documents
            pairs = zip(names, given, defaults, strict=True)
            if asked := [name for name, value, default in pairs if value not in (default, None, [], {}, "")]:
                raise AskedFor(asked)


class AskedFor(ValueError):
    """Fields of a body that are `NotOffered`, with something else than their defaults."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


@cache
def _not_offered(model: type[msgspec.Struct]) -> tuple[list[str], list[Any]]:
    """The names of its `NotOffered` fields, and their defaults."""
    fields = [field for field in msgspec.structs.fields(model) if field.type == NotOffered]
    return [field.name for field in fields], [field.default for field in fields]


def not_in_query(**harmless: str) -> Guard:
    """The same for parameters of the query, each with the value that asks for nothing."""

    async def refuse(connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler) -> None:
        given = connection.query_params
        asked = [name for name in harmless if given.get(name, "") not in ("", harmless[name])]
        if asked:
            raise InvalidRequest(_not_offered_problems(("query",), asked))

    return refuse


def _not_offered_problems(here: tuple[str | int, ...], names: list[str]) -> list[Problem]:
    return [Problem((*here, name), "not_offered", f"`{name}` is not offered by this server.") for name in names]


class Json(AbstractDTO[T]):
    """Litestar's hook for decoding bodies: ours keeps numbers strict, places exact, and NaN a 422 rather than a 400."""

    def decode_bytes(self, value: bytes) -> Any:
        decoded, refused = decode(value, self.model_type)
        self.asgi_connection.state.refused = refused
        return decoded

    def decode_builtins(self, value: dict[str, Any]) -> Any:
        return msgspec.convert(value, self.model_type)

    @classmethod
    def create_for_field_definition(cls, *_args: Any, **_kwargs: Any) -> None:
        """No backend: decoding is the one function below."""

    @classmethod
    def create_openapi_schema(
        cls,
        field_definition: FieldDefinition,
        handler_id: str,  # noqa: ARG003 - Litestar's signature
        schema_creator: Any,
    ) -> Reference | Schema:
        schema: Reference | Schema = schema_creator.for_field_definition(field_definition)
        return schema

    @classmethod
    def generate_field_definitions(cls, _model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        yield from ()

    @classmethod
    def detect_nested_field(cls, _field_definition: FieldDefinition) -> bool:
        return False


def decode(body: bytes, model: type[T]) -> tuple[T, list[Problem]]:
    """The body as `model`, and what must still be refused in it.

    Python's own JSON is asked when msgspec cannot read it: it takes NaN and Infinity, which clients send, so that
    the answer can say where they stand.
    """
    try:
        return msgspec.json.decode(body, type=model), []
    except msgspec.ValidationError as error:
        raise InvalidRequest(_problems(error, model)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _decode_leniently(body, model, str(error))


def _decode_leniently(body: bytes, model: type[T], reason: str) -> tuple[T, list[Problem]]:
    """The body with null for what JSON cannot hold, and the problems for which it must be refused; at least one."""
    malformed = Problem(("body",), "malformed_json", f"The body is not JSON: {reason}.")
    try:
        value = json.loads(body)
        problems = [*_impossible(value, ("body",))]
    except (ValueError, RecursionError):
        raise InvalidRequest([malformed]) from None
    finite = all(problem.code == "not_finite" for problem in problems)
    if not problems or not finite or not getattr(model, "reports_refused", False):
        raise InvalidRequest(problems or [malformed])
    try:
        return msgspec.json.decode(msgspec.json.encode(value), type=model), problems
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(problems) from None


def _impossible(value: Any, here: tuple[str | int, ...]) -> Generator[Problem, None, None]:
    """The places of what JSON cannot hold: NaN, Infinity, numbers that overflow, halves of surrogate pairs."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        yield Problem(
            here,
            "not_finite",
            f"{_named(here)}NaN and Infinity are no JSON numbers, and no vector holds them.",
        )
    elif isinstance(value, str) and not _encodable(value):
        yield Problem(here, "bad_unicode", f"{_named(here)}The text holds half of a surrogate pair.")
    elif isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found = 0
        for key, item in items:
            if isinstance(key, str) and not _encodable(key):
                yield Problem(here, "bad_unicode", f"{_named(here)}A key holds half of a surrogate pair.")
                continue
            for problem in _impossible(item, (*here, key)):
                yield problem
                found += 1
                # One bad number of a vector says it; a thousand more would bury the other documents.
                if isinstance(item, float):
                    return


def _named(here: tuple[str | int, ...]) -> str:
    return f"{'.'.join(map(str, here[1:]))}: " if len(here) > 1 else ""


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _problems(error: msgspec.ValidationError, model: Any) -> list[Problem]:
    """msgspec's message and path (`Expected `int` - at `$.a[0]``) as a problem at `("body", "a", 0)`."""
    message, _, path = str(error).partition(" - at `$")
    location: list[str | int] = ["body"]
    for name, index in PATH.findall(path.rstrip("`")):
        location.append(name or (int(index) if index.isdigit() else index))
    if isinstance(error.__cause__, AskedFor):
        return _not_offered_problems(tuple(location), error.__cause__.names)
    if "unknown field" in message:
        fields = [name for name in model.__struct_fields__ if name not in _not_offered(model)[0]]
        accepted = f"; the keys are {', '.join(fields)}" if len(location) == 1 else ""
        return [Problem(tuple(location), "extra_forbidden", f"{message}{accepted}.")]
    return [Problem(tuple(location), "bad_type", f"{message}.")]


def has_namespace(request: Request[Any, Any, Any]) -> bool:
    """Whether the request names a namespace: for what concerns all of them otherwise."""
    return bool(request.headers.get("x-namespace") or request.query_params.get("namespace"))


def namespace_of(request: Request[Any, Any, Any]) -> str:
    """The namespace of a request: the header `X-Namespace` (read as UTF-8 where it is that), else `?namespace=`."""
    header = request.headers.get("x-namespace", "")
    with suppress(UnicodeError):
        header = header.encode("latin-1").decode()
    found = header or request.query_params.get("namespace")
    if not found:
        message = "Say which namespace: send its id or name in the X-Namespace header."
        raise InvalidRequest([Problem(("header", "X-Namespace"), "missing_namespace", message)])
    return str(found)


class AnyJson(OpenAPISchemaPlugin):
    """Tells OpenAPI that a `msgspec.Raw` is any JSON: text that we pass through unread."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        return value is msgspec.Raw

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:  # noqa: ARG002
        return Schema()
