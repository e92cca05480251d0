"""/v1/namespaces/adopt: a table that is there already as a namespace, in place. An extension of the public API."""

from typing import Annotated

import msgspec
from litestar import Router, post
from litestar.params import JSONBody

from app.api.namespace_models import Namespace, NamespaceId, shown
from app.api.wire import Input, Json, RuntimeDep
from app.db.engine import transaction
from app.domain.catalog import adopting, described
from app.domain.catalog.adoptable import Wanted, WantedVector


class AdoptedVectorInput(Input, frozen=True):
    """A column of pgvector's type vector; its name in the API (the column's, by default), and its metric: without, that
    of its HNSW index, else cosine."""

    column: str
    name: str | None = None
    metric: str | None = None

    def wanted(self) -> WantedVector:
        return WantedVector(self.column, self.name, self.metric)


class AdoptInput(Input, frozen=True):
    """A table to adopt, best with its schema (`public.films`), and as what.

    `key` is the column that is the `document_id`, by default the primary key; `vectors` are by default all columns of
    type vector. The payload is made of `payload_columns`, by default all that are left; or it is the one JSON column
    `payload_column`.
    """

    table: str
    namespace_id: NamespaceId
    namespace_name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    description: str | None = None
    key: str | None = None
    vectors: list[AdoptedVectorInput] | None = None
    payload_columns: list[str] | None = None
    payload_column: str | None = None

    def wanted(self) -> Wanted:
        vectors = None if self.vectors is None else [vector.wanted() for vector in self.vectors]
        named = (self.namespace_name, self.description)
        return Wanted(
            self.table, self.namespace_id, *named, self.key, vectors, self.payload_columns, self.payload_column
        )


class Adopted(msgspec.Struct, kw_only=True):
    """The namespace, the table that it reads, and what to know of it: what is searched exactly, what is left out."""

    namespace: Namespace
    adopted_from: str
    warnings: list[str]


@post("/adopt", dto=Json[AdoptInput], return_dto=None, status_code=200, scope="admin", operation_id="adopt_table")
async def adopt(data: JSONBody[AdoptInput], runtime: RuntimeDep) -> Adopted:
    """Make a table of the database a standalone namespace, in place: nothing is copied, and the table is not changed.

    It stays its owner's: documents are written in SQL, and are searched by the next query.
    """
    async with transaction(runtime.engine, runtime.settings) as conn:
        made = await adopting.adopt(conn, runtime.settings, data.wanted())
        namespace = shown(await described.describe(conn, made.catalog.namespace_id))
    return Adopted(namespace=namespace, adopted_from=made.table, warnings=list(made.warnings))


router = Router("/namespaces", route_handlers=[adopt], tags=["Namespaces"])
