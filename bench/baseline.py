"""The hand-written handler that the service is compared with: what a good engineer writes for this one search.

The connection comes from the same pool (`app.db.engine`), as the driver's own; the statement is the service's own
text. What can be left out is left out: no keys, no checks of the query, no transaction (a read of one statement
needs none), and the settings that the statement needs are those of the connection, made once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from litestar import Litestar, post
from sqlalchemy import event

from app.db.engine import create_engine, raw
from app.settings import Settings


class Search(msgspec.Struct):
    """The body: one query vector."""

    vector: list[float]


@dataclass(frozen=True, slots=True)
class Statement:
    """The statement, its settings, and its values but for the query vector's, whose name is `query`."""

    text: str
    settings: Mapping[str, str]
    values: Mapping[str, Any]
    query: str


def create_app(settings: Settings, url: str, statement: Statement) -> Litestar:
    engine = create_engine(url, settings, application_name="baseline")

    @event.listens_for(engine.sync_engine, "connect")
    def configure(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.autocommit = True
        cursor = dbapi_connection.cursor()
        for name, value in statement.settings.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
        cursor.close()

    @post("/search", status_code=200)
    async def search(data: Search) -> dict[str, Any]:
        values = {**statement.values, statement.query: np.array(data.vector, dtype=np.float32)}
        async with engine.connect() as conn:
            cursor = await (await raw(conn)).execute(statement.text, values)
            rows = await cursor.fetchall()
        return {"documents": [_document(*row[6:]) for row in rows]}

    return Litestar([search], on_shutdown=[engine.dispose], logging_config=None, openapi_config=None)


def _document(
    document_id: str, score: float, collection_id: str, payload: str, metadata: str, created_at: Any, updated_at: Any
) -> dict[str, Any]:
    fields = msgspec.json.decode(payload)
    return {
        **fields,
        "document_id": document_id,
        "collection_id": collection_id,
        "score": score,
        "payload": fields,
        "_internal": {
            "metadata": msgspec.json.decode(metadata),
            "created_at": created_at,
            "updated_at": updated_at,
        },
    }
