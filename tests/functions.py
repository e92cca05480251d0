"""Calls retrievers that are SQL functions, and compares what they answer with the API."""

import json
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.http import Api


def written(value: Any, type_: str) -> Any:
    """An input as the parameter of that type takes it."""
    match type_:
        case "vector":
            return json.dumps(value)
        case "vector[]":
            return [json.dumps(each) for each in (value if isinstance(value[0], list) else [value])]
        case "sparsevec":
            pairs = zip(value["indices"], value["values"], strict=True)
            return "{" + ",".join(f"{index + 1}:{number}" for index, number in pairs) + "}/16"
        case "jsonb":
            return Jsonb(value)
    return value


def call_of(
    schema: str, name: str, parameters: list[dict[str, Any]], inputs: Mapping[str, Any], **more: Any
) -> sql.Composed:
    """`SELECT * FROM schema.name(parameter => value, …)`."""
    arguments = [
        sql.SQL("{} => {}::{}").format(
            sql.Identifier(p["name"]), sql.Literal(written(inputs[p["input"]], p["type"])), sql.SQL(p["type"])
        )
        for p in parameters
        if inputs.get(p["input"]) is not None
    ]
    arguments += [sql.SQL("{} => {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in more.items()]
    call = sql.SQL("SELECT * FROM {}({})")
    return call.format(sql.Identifier(schema, name), sql.SQL(", ").join(arguments))


class Functions:
    """The functions of one namespace."""

    def __init__(self, api: Api, conn: psycopg.Connection[Any]) -> None:
        self.api, self.conn = api, conn

    def publish(self, retriever: str, **body: Any) -> Any:
        return self.api("PUT", f"/retrievers/{retriever}/function", body or None)

    def call(self, retriever: str, inputs: Mapping[str, Any], **more: Any) -> list[tuple[str, float | None, Any]]:
        """Ids, scores and fields."""
        told = self.api("GET", f"/retrievers/{retriever}/function")
        text = call_of(told["schema_name"], told["function_name"], told["parameters"], inputs, **more)
        return [(row[1], row[2], row[4]) for row in self.conn.execute(text).fetchall()]

    def same(self, retriever: str, inputs: Mapping[str, Any], **more: Any) -> list[str]:
        """Answers as the API does; the ids."""
        answer = self.api.execute(retriever, inputs=dict(inputs), limit=100)
        expected = [(d["document_id"], d.get("score"), d["payload"]) for d in answer["documents"]]
        assert self.call(retriever, inputs, **more) == expected, (retriever, inputs, more)
        return [document_id for document_id, *_ in expected]
