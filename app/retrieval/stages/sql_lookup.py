"""Looks rows up in the user's own tables, by a query that an administrator stored."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from app.errors import Conflict, InvalidRequest, PgretrieveError
from app.retrieval.host import Host, Row
from app.retrieval.stages.base import Check, HostStage, StageType
from app.retrieval.stages.hosted import OF_THE_REQUEST, check_when, chosen, secrets_in


class SqlLookup(HostStage, frozen=True, kw_only=True):
    """Look up rows of the database for each document, by a stored query, in one statement for all documents.

    `lookup` names a query that an administrator registered (`PUT /v1/lookups/{name}`, an extension of the public API);
    a retriever brings no SQL. It runs as the analysts' own login, read-only, with the look-up's limits of time and rows
    (of all documents together, told in `warnings` where it is reached). `parameters` are its values, with templates
    that read INPUT, DOC and CONTEXT; they are bound, and cast to the types that the look-up declares.
    What is found stands in `output_field`: with `result_handling` `first` an object, with `all` a list of them;
    `error_if_empty` and `error_if_multiple` refuse what they name, and give the object. Where nothing is found,
    `on_no_results` leaves the document as it is (`skip`), writes null, or is an `error`. `when` chooses the documents.
    `on_error`: `skip` leaves documents unchanged that fail (all, where the statement does), `remove` drops them, and
    `raise` ends the request.
    """

    stage_id: ClassVar[str] = "sql_lookup"
    stage_type: ClassVar[StageType] = "enrich"
    category: ClassVar[str] = "enrich"
    icon: ClassVar[str] = "database"
    use_cases: ClassVar[tuple[str, ...]] = ("Prices and stock from your own tables", "Names of ids")
    example: ClassVar[dict[str, Any]] = {
        "lookup": "prices",
        "parameters": {"sku": "{{DOC.sku}}"},
        "output_field": "price",
    }
    not_offered: ClassVar[frozenset[str]] = frozenset({"connection_id", "query"})
    scopes: ClassVar[frozenset[str]] = frozenset({"doc", "context", "stage"})

    lookup: str
    parameters: dict[str, Any] = {}
    output_field: str = "sql_result"
    result_handling: Literal["first", "all", "error_if_empty", "error_if_multiple"] = "first"
    on_no_results: Literal["skip", "null", "error"] = "null"
    timeout: int = 30
    when: Any = None
    on_error: Literal["skip", "remove", "raise"] = "skip"

    def check(self, check: Check) -> None:
        check.output("output_field", self.output_field)
        check.range("timeout", self.timeout, 1, 300)
        if not self.lookup or "\0" in self.lookup:
            check.add("bad_parameter", "lookup is the name of a stored look-up.", "lookup")
        if secrets_in(self.parameters):
            check.add("secret_refused", "parameters take no secret: a query could show it.", "parameters")
        check_when(check, self.when)

    async def run(self, rows: list[Row], host: Host) -> list[Row]:
        wanted, failed = list[tuple[Row, Mapping[str, Any]]](), dict[str, str]()
        for row in await chosen(self.when, rows, host):
            try:
                wanted.append((row, {name: host.fill(value, row) for name, value in self.parameters.items()}))
            except InvalidRequest as error:
                self._failed(error, [row], failed)
        try:
            values = [given for _, given in wanted]
            found = await host.lookup(self.lookup, values, float(self.timeout)) if wanted else []
        except PgretrieveError as error:
            self._failed(error, [row for row, _ in wanted], failed)
            wanted, found = [], []
        for (row, _), answered in zip(wanted, found, strict=True):
            try:
                self._write(row, answered)
            except Conflict as error:
                self._failed(error, [row], failed)
        if failed:
            host.tell("failed", len(failed))
            why = next(iter(failed.values()))
            host.warn(f"sql_lookup failed for {len(failed)} of {len(rows)} documents: {why}")
        return [row for row in rows if self.on_error != "remove" or row.document_id not in failed]

    def _failed(self, error: PgretrieveError, rows: Sequence[Row], failed: dict[str, str]) -> None:
        if self.on_error == "raise" or error.error_code in OF_THE_REQUEST:
            raise error
        failed |= {row.document_id: error.message for row in rows}

    def _write(self, row: Row, answered: Sequence[Mapping[str, Any]]) -> None:
        if not answered and (self.on_no_results == "error" or self.result_handling == "error_if_empty"):
            raise Conflict(f"The look-up {self.lookup!r} found nothing.", code="lookup_empty")
        if len(answered) > 1 and self.result_handling == "error_if_multiple":
            raise Conflict(f"The look-up {self.lookup!r} found more than one row.", code="lookup_multiple")
        if answered or self.on_no_results == "null":
            one = answered[0] if answered else None
            row.put(self.output_field, list(answered) or None if self.result_handling == "all" else one)
