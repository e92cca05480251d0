"""The text of a retriever's function. Names are made by us, every value is quoted by the driver."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects.postgresql import psycopg as dialect

from app.db.statements import statement
from app.domain.retrieving.formatting import PARAMETER, formatted, type_of
from app.retrieval.function_plan import FunctionPlan, Variant, expression_of
from app.retrieval.in_sql import as_jsonb
from app.retrieval.parameters import NotAFunction, Parameter
from app.retrieval.plan import Plan
from app.retrieval.strategy import MEMORY, UNREACHED

PLACE = re.compile(r":([a-z]+)")
# Names that parameters cannot have: the function's own, and those of the rows that it answers.
RESERVED = frozenset(
    {"strategy", "row_limit", "held", "bind", "rank", "document_id", "score", "collection_id", "payload", "metadata"}
    | {"created_at", "updated_at"}
)
FIXED = {"jit": "off", "plan_cache_mode": "force_custom_plan"}
_DIALECT = dialect.dialect()  # type: ignore[no-untyped-call]


class Writer:
    """Writes for one namespace's schema; `vectors` is the schema that pgvector is installed in."""

    def __init__(self, cursor: psycopg.AsyncClientCursor[Any], schema: str, vectors: str) -> None:
        self._cursor, self._schema, self._vectors = cursor, schema, vectors

    def name(self, function: str) -> str:
        return sql.Identifier(self._schema, function).as_string(self._cursor)

    def signature(self, parameters: Sequence[Parameter]) -> str:
        """The parameters as they are declared."""
        given = [self._declared(parameter) for parameter in parameters]
        return ", ".join([*given, "strategy text DEFAULT 'auto'", "row_limit bigint DEFAULT NULL"])

    def create(self, function: str, signature: str, plan: FunctionPlan, rows: int | None) -> str:
        return self._created(function, signature, self._body(plan), rows, self._settings(plan))

    def broken(self, function: str, signature: str, message: str, hint: str) -> str:
        """One that says why it does not answer."""
        body = template("function_body_broken", message=self._literal(message), hint=self._literal(hint))
        return self._created(function, signature, body, None, self._setting("search_path", self._path()))

    def drop(self, function: str) -> str:
        return template("function_drop", function=self.name(function))

    def comment(self, function: str, text: str) -> str:
        return template("function_comment", function=self.name(function), comment=self._literal(text))

    def _created(self, function: str, signature: str, body: str, rows: int | None, settings: str) -> str:
        return template(
            "function_create",
            function=self.name(function),
            parameters=signature,
            rows=str(rows or 1_000),
            settings=settings,
            body=self._literal(f"\n{body}\n"),
        )

    def _declared(self, parameter: Parameter) -> str:
        kept = f"{sql.Identifier(parameter.name).as_string(self._cursor)} {self._type(parameter.type)}"
        return kept if parameter.required else f"{kept} DEFAULT {self._default(parameter)}"

    def _type(self, type_: str) -> str:
        if type_ in ("vector", "sparsevec", "vector[]"):
            name = sql.Identifier(self._vectors, type_.removesuffix("[]")).as_string(self._cursor)
            return name + ("[]" if type_.endswith("[]") else "")
        return type_

    def _default(self, parameter: Parameter) -> str:
        value = parameter.default
        if value is None:
            return "NULL"
        text = value if parameter.type == "text" else msgspec.json.encode(value).decode()
        if parameter.type in ("sparsevec", "vector[]"):
            raise NotAFunction(f"The input {parameter.input!r} has a default, which a {parameter.type} cannot have.")
        return f"{self._literal(text)}::{self._type(parameter.type)}"

    def _settings(self, plan: FunctionPlan) -> str:
        settings = dict(FIXED)
        if plan.relations:
            # As each execution over the API has it.
            settings |= {"hnsw.ef_search": str(plan.ef_search), "hnsw.iterative_scan": "relaxed_order"}
            settings |= {"hnsw.max_scan_tuples": str(UNREACHED), "hnsw.scan_mem_multiplier": str(MEMORY)}
        lines = [self._setting(name, self._literal(value)) for name, value in settings.items()]
        return "\n".join([self._setting("search_path", self._path()), *lines])

    def _setting(self, name: str, value: str) -> str:
        identifier = sql.Identifier(*name.split(".")).as_string(self._cursor)
        return template("function_setting", name=identifier, value=value)

    def _path(self) -> str:
        return f"pg_catalog, {sql.Identifier(self._vectors).as_string(self._cursor)}, pg_temp"

    def _body(self, plan: FunctionPlan) -> str:
        checks = "".join(f"    {line}\n" for line in self._checks(plan.parameters))
        choice = ""
        if plan.relations:
            choice = template(
                "function_choice",
                schema=self._literal(self._schema),
                relations=self._literal(list(plan.relations)),
                small=str(plan.small),
            )
            choice += ";\n"  # which the file of statements ends them with
        branches = "".join(f"{self._branch(plan, variant)};\n" for variant in plan.variants)
        return template("function_body", checks=checks, choice=choice, branches=branches)

    def _checks(self, parameters: Sequence[Parameter]) -> list[str]:
        lines = [self._performed(sa.func.pgretrieve.input_strategy(sa.column("strategy")))]
        check = sa.func.pgretrieve
        for parameter in parameters:
            name, column = sa.literal(parameter.input), parameter.column
            if parameter.default is not None:
                quoted = sql.Identifier(parameter.name).as_string(self._cursor)
                lines.append(f"{quoted} := coalesce({quoted}, {self._default(parameter)});")
            if parameter.required:
                lines.append(self._performed(check.input_needed(name, column.is_(None))))
            if parameter.kind is not None:
                lines.append(self._performed(check.input_kind(name, parameter.jsonb, sa.literal(parameter.kind))))
            if parameter.allowed is not None:
                allowed = as_jsonb(msgspec.json.encode(parameter.allowed).decode())
                lines.append(self._performed(check.input_allowed(name, parameter.jsonb, allowed)))
        return lines

    def _performed(self, call: sa.ColumnElement[Any]) -> str:
        return f"PERFORM {self._expression(call)};"

    def _branch(self, function: FunctionPlan, variant: Variant) -> str:
        plan, declared, values = variant.plan, [], dict[str, Any]()
        for bind in plan.binds:
            made = expression_of(function, plan, bind)
            if made is None:
                values[bind.name] = bind.convert(bind.value)
            elif bind.name != "page_limit":
                kept = type_of(plan.text, bind.name)
                declared.append(f"            {bind.name} {kept} := CAST({self._expression(made)} AS {kept});")
        names = {line.split()[0] for line in declared}
        return template(
            "function_branch",
            strategies=self._literal(list(variant.strategies)),
            declarations="\n".join(declared),
            needs="".join(f"            {line}\n" for line in self._needs(plan)),
            statement=self._statement(plan, values, names),
        )

    def _statement(self, plan: Plan, values: Mapping[str, Any], names: set[str]) -> str:
        def place(found: re.Match[str]) -> str:
            if found[1] == "page_limit":
                return "row_limit"
            return f"bind.{found[1]}" if found[1] in names else found[0]

        text = PARAMETER.sub(place, formatted(plan.text))
        return self._cursor.mogrify(text, values)

    def _needs(self, plan: Plan) -> list[str]:
        message = "Every search of a feature_search stage was skipped, for its query is empty: give one of them."
        lines = []
        for group in plan.needs_one:
            queries = [sa.column(name, _selectable=sa.table("bind")).is_(None) for name in group]
            refused = self._expression(sa.func.pgretrieve.input_refused(sa.literal(message)))
            lines.append(f"IF {self._expression(sa.and_(*queries))} THEN PERFORM {refused}; END IF;")
        return lines

    def _expression(self, expression: sa.ColumnElement[Any]) -> str:
        compiled = expression.compile(dialect=_DIALECT)
        return self._cursor.mogrify(str(compiled), compiled.params)

    def _literal(self, value: Any) -> str:
        return sql.Literal(value).as_string(self._cursor)


def template(named: str, **parts: str) -> str:
    """A statement of ours without its comment, with other texts in it."""
    text = "\n".join(line for line in statement(named).text.split("\n") if not line.startswith("-- "))
    return PLACE.sub(lambda found: parts[found[1]], text)
