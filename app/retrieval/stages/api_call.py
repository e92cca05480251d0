"""Calls an HTTP API for each document, and keeps what it answers in a field."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlencode, urlsplit

import msgspec

from app.errors import InvalidRequest, Problem, Unavailable
from app.retrieval import json_path
from app.retrieval.host import Host, Row
from app.retrieval.stages.base import Check, HostStage, StageType
from app.retrieval.stages.hosted import check_when, check_written, chosen, each_alone, given, secrets_in
from app.retrieval.templates import Template

MAX_BYTES = 10 * 2**20
MAX_CALLS = 100
MAX_HEADERS = 50
MAX_DOMAINS = 100
NAMES = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a secret of the server is sent. `secret_ref` is its name; a `basic` one is `user:password`."""

    type: Literal["none", "bearer", "api_key", "basic", "custom_header"] = "none"
    secret_ref: str | None = None
    key: str | None = None
    location: Literal["header", "query"] | None = None


class RateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Requests to one host by one process of the service."""

    requests_per_minute: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    requests_per_hour: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent for one document."""

    url: str
    headers: Mapping[str, str]
    body: Any


class ApiCall(HostStage, frozen=True, kw_only=True):
    """Call an HTTP API for each document (100 at most), and keep its JSON in `output_field`.

    `url`, the values of `headers`, and `body` (sent as JSON, not with GET) may read DOC, INPUT and CONTEXT; write what
    goes into the URL as `{{ DOC.id|urlencode }}`. The host must be one of `allowed_domains` (`*.example.com` means
    every host below) and on the public Internet; redirects are not followed. Secrets are named (`auth.secret_ref`, or
    `{{SECRET.name}}` in a header), lie in the server's environment, and go to the hosts of `PGRETRIEVE_SECRET_HOSTS`
    alone. `response_path` takes a part of the answer: `$.data[0].name`. A status of 400 and more, an answer that is no
    JSON or text, or is longer than `max_response_size`, is a failure: `on_error` leaves the document as it is (skip),
    leaves it out (remove), or fails the stage (raise). `when` is a filter: for other documents nothing is called.
    """

    stage_id: ClassVar[str] = "api_call"
    stage_type: ClassVar[StageType] = "enrich"
    category: ClassVar[str] = "enrich"
    icon: ClassVar[str] = "globe"
    use_cases: ClassVar[tuple[str, ...]] = ("Stock, prices or weather of now", "A field of another system")
    example: ClassVar[dict[str, Any]] = {
        "url": "https://api.example.com/items/{{ DOC.document_id|urlencode }}",
        "allowed_domains": ["api.example.com"],
        "auth": {"type": "bearer", "secret_ref": "example_key"},
        "output_field": "stock",
        "response_path": "$.stock",
    }
    scopes: ClassVar[frozenset[str]] = frozenset({"doc", "context", "stage", "secret"})

    url: Any
    allowed_domains: list[str]
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    auth: Auth = Auth()
    headers: dict[str, Any] | None = None
    body: Any = None
    output_field: str = "api_response"
    timeout: Annotated[int, msgspec.Meta(ge=1, le=60)] = 10
    max_response_size: Annotated[int, msgspec.Meta(ge=1_024)] = MAX_BYTES
    rate_limit: RateLimit | None = None
    response_path: str | None = None
    when: Any = None
    on_error: Literal["skip", "remove", "raise"] = "skip"

    def check(self, check: Check) -> None:
        self._check_place(check)
        self._check_auth(check)
        headers = self.headers or {}
        if len(headers) > MAX_HEADERS or not all(set(name.lower()) <= NAMES and name for name in headers):
            check.add("bad_parameter", f"headers are at most {MAX_HEADERS}, with names of letters and -.", "headers")
        for name, value in headers.items():
            if not isinstance(value, str | Template):
                check.add("bad_parameter", "A header's value is a text.", "headers", name)
            elif name.lower() == "authorization" and not secrets_in(value):
                check.add("secret_refused", "No key stands in a definition: use auth.secret_ref.", "headers", name)
        if self.body is not None and (not isinstance(self.body, dict) or secrets_in(self.body)):
            check.add("bad_parameter", "body is an object without secrets.", "body")
        check.output("output_field", self.output_field)
        check_when(check, self.when)
        if self.rate_limit and self.rate_limit.requests_per_hour is not None:
            check.add("not_offered", "requests_per_hour is not offered; requests_per_minute is.", "rate_limit")
        if path := given(self.response_path):
            try:
                json_path.parse(path)
            except ValueError as error:
                check.add("bad_parameter", f"response_path: {error}.", "response_path")

    def _check_place(self, check: Check) -> None:
        if not isinstance(self.url, str | Template) or secrets_in(self.url):
            check.add("bad_parameter", "url is a text without secrets.", "url")
        elif isinstance(self.url, str) and urlsplit(self.url).scheme not in ("http", "https"):
            check.add("bad_parameter", "url begins with http:// or https://.", "url")
        if not 1 <= len(self.allowed_domains) <= MAX_DOMAINS:
            check.add("bad_parameter", f"allowed_domains names 1 to {MAX_DOMAINS} hosts.", "allowed_domains")
        for n, domain in enumerate(self.allowed_domains):
            if set(domain.removeprefix("*.").lower()) - NAMES - {"."} or not domain.removeprefix("*."):
                message = "A domain is a host such as api.example.com, or *.example.com for all below; never *."
                check.add("bad_parameter", message, "allowed_domains", n)

    def _check_auth(self, check: Check) -> None:
        auth = self.auth
        if auth.type != "none" and not given(auth.secret_ref):
            check.add("bad_parameter", "auth needs secret_ref: the name of a secret of the server.", "auth")
        elif auth.secret_ref and not set(auth.secret_ref.lower()) <= NAMES - {"-"}:
            check.add("secret_refused", "secret_ref is a secret's name, never the secret itself.", "auth")
        if auth.type in ("api_key", "custom_header") and not set((given(auth.key) or " ").lower()) <= NAMES:
            check.add("bad_parameter", "auth needs key: the name of the header or of the query's parameter.", "auth")

    async def run(self, rows: list[Row], host: Host) -> list[Row]:
        wanted = await chosen(self.when, rows, host)
        if len(wanted) > MAX_CALLS:
            message = f"api_call takes {MAX_CALLS} documents at most, not {len(wanted)}: put a limit before it."
            raise InvalidRequest([Problem(("body", "stages"), "budget_spent", message)])

        written = 0

        async def called(row: Row) -> Any:
            nonlocal written
            content = await self._answer(row, host)
            written += len(content)
            check_written(written)
            return self._value(content)

        results = await each_alone(called, wanted, host)
        failed: dict[int, Exception] = {}
        for row, result in zip(wanted, results, strict=True):
            if isinstance(result, Exception):
                failed[id(row)] = result
            else:
                row.put(self.output_field, result)
        host.tell("calls", len(wanted))
        if failed:
            first = next(iter(failed.values()))
            if self.on_error == "raise":
                raise first
            host.tell("failed", len(failed))
            host.warn(f"api_call failed for {len(failed)} of {len(wanted)} documents: {first}")
        return rows if self.on_error == "skip" else [row for row in rows if id(row) not in failed]

    async def _answer(self, row: Row, host: Host) -> bytes:
        request, secret = self._request(row, host)
        status, content = await host.fetch(
            self.method,
            request.url,
            headers=request.headers,
            json=request.body,
            limit_s=self.timeout,
            max_bytes=self.max_response_size,
            secret=secret,
            domains=self.allowed_domains,
            per_minute=self.rate_limit.requests_per_minute if self.rate_limit else None,
        )
        if status >= 400:
            raise Unavailable(f"The API answered HTTP {status}.", code="api_failed", retryable=False)
        return content

    def _value(self, content: bytes) -> Any:
        """The JSON of an answer, or its text, and what `response_path` takes of it."""
        try:
            value = msgspec.json.decode(content) if content else None
        except (msgspec.DecodeError, RecursionError):
            value = content.decode(errors="replace")
        try:
            return json_path.value_at(value, json_path.parse(given(self.response_path) or "$"))
        except LookupError:
            message = f"The API's answer has nothing at {self.response_path}."
            raise Unavailable(message, code="api_failed", retryable=False) from None

    def _request(self, row: Row, host: Host) -> tuple[Request, bool]:
        """What is sent, and whether a secret is in it."""
        url = str(host.fill(self.url, row))
        headers = {name: str(host.fill(value, row)) for name, value in (self.headers or {}).items()}
        body = host.fill(self.body, row) if self.method != "GET" else None
        auth = self.auth
        if auth.type == "none":
            return Request(url, headers, body), bool(secrets_in(self.headers))
        secret = str(host.fill(Template(f"{{{{SECRET.{auth.secret_ref}}}}}", frozenset({"secret"}))))
        if auth.type == "api_key" and auth.location == "query":
            joined = "&" if urlsplit(url).query else "?"
            return Request(f"{url.partition('#')[0]}{joined}{urlencode({str(auth.key): secret})}", headers, body), True
        name, value = {
            "bearer": ("Authorization", f"Bearer {secret}"),
            "basic": ("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}"),
        }.get(auth.type, (str(auth.key), secret))
        return Request(url, {**headers, name: value}, body), True
