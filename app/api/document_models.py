"""What requests say of documents, and what answers show of them."""

from typing import Annotated, Any, Literal
from uuid import uuid4

import msgspec
from litestar import Request
from litestar.datastructures import State

from app.api.paging import PageInput, Pagination
from app.api.wire import Input, NotOffered
from app.domain.documents.documents import DIRECT_UPSERT, Document
from app.domain.documents.hits import SYSTEM_KEYS, Shown
from app.domain.security import acls
from app.errors import Problems
from app.retrieval.catalog import Catalog

AnyRequest = Request[Any, Any, State]
Fields = dict[str, msgspec.Raw]
Filters = Any


class AclInput(Input, frozen=True):
    """Who may read a document: principals of keys and roles of the database, by their names; `public`: all of them.

    Those under `write` read it, too; keys with a principal only read.
    """

    read: list[str] | None = None
    write: list[str] | None = None
    public: bool | None = None

    def given(self) -> dict[str, Any]:
        return {name: value for name in acls.FIELDS if (value := getattr(self, name)) is not None}


class DocumentInput(Input, frozen=True):
    """A document with its vectors by index name; `payload` is any JSON object and comes back as it was sent.

    A vector is a list of numbers, `{indices, values}` in a sparse index, or a list of vectors in one of kind `multi`.
    """

    document_id: str
    vectors: dict[str, Any]
    payload: Fields = {}
    metadata: Fields = {}
    acl: AclInput | None = None
    source_type: NotOffered = None
    root_object_id: NotOffered = None
    root_bucket_id: NotOffered = None
    source_object_id: NotOffered = None
    source_document_id: NotOffered = None
    source_collection_id: NotOffered = None
    lineage_path: NotOffered = None
    lineage_chain: NotOffered = None
    content_hash: NotOffered = None


class UpsertOptions(Input, frozen=True):
    """What a write may ask for. With an `idempotency_key`, a repeated request gets the first answer and writes nothing.

    A `write_token` is issued when asked for and accepted wherever it is sent; writes are found at once without it.
    `wait` is that of the request.
    """

    write_token: bool = False
    wait: bool = False
    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = None


class UpsertInput(Input, frozen=True):
    """Documents to store; one of an id that exists replaces it whole.

    With `wait` documents that embed themselves are embedded before the answer, as far as the time of a request allows.
    """

    reports_refused = True

    documents: Annotated[list[DocumentInput], msgspec.Meta(min_length=1)]
    collection_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] = DIRECT_UPSERT
    options: UpsertOptions | None = None
    wait: bool = False


class SortInput(Input, frozen=True):
    """By the JSON value of a field; where it is missing or null the document is last, either way."""

    field: str
    direction: Literal["asc", "desc"] | None = None


class GroupInput(Input, frozen=True):
    """By the JSON value of a field."""

    field: str


class ListInput(PageInput, frozen=True):
    """A page of a collection's documents.

    `search` finds a text, in any case, within the texts of the payload, however deep. `return_vector_names` is true for
    the names of the vectors that a document has, or a list of those that are answered.
    """

    filters: Filters = None
    sort: SortInput | None = None
    search: Annotated[str, msgspec.Meta(max_length=1_000)] | None = None
    offset: int | None = None
    page: int | None = None
    return_vectors: bool = False
    return_vector_names: bool | list[str] | None = None
    group_by: str | GroupInput | None = None
    select: Annotated[list[str], msgspec.Meta(max_length=200)] | None = None
    partition: NotOffered = None
    return_presigned_urls: NotOffered = False
    expand: NotOffered = None


class NamespaceListInput(ListInput, frozen=True):
    """A page of documents of all collections, or of some."""

    collection_ids: list[str] | None = None


class Consistency(msgspec.Struct, kw_only=True):
    """When a write can be found: at once, since it is committed before the answer; but `after_processing` where some of
    the documents are still to be embedded, of which `poll` says how to ask."""

    retriever_visible: str = "immediate"
    write_token_available: bool = False
    expected_visible_within_ms: int | None = 0
    poll: dict[str, str] | None = None


class Upserted(msgspec.Struct, kw_only=True):
    """What was stored. `unsearchable_document_ids` have no vector now; those that a service embeds get theirs, which
    `warnings` say."""

    inserted: int
    document_ids: list[str]
    unsearchable_document_ids: list[str]
    write_token: str | None = None
    consistency: Consistency
    warnings: list[str]


class Stats(msgspec.Struct, kw_only=True):
    """How many there are in all, when that was asked for."""

    total_documents: int | None = None
    total_groups: int | None = None


class DocumentList(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A page of documents, or of groups of them."""

    results: list[dict[str, Any]] | None = None
    groups: list[dict[str, Any]] | None = None
    group_by_field: str | None = None
    pagination: Pagination
    total_documents: int | None = None
    stats: Stats | None = None
    warnings: list[str] | None = None


def shown(
    catalog: Catalog,
    problems: Problems,
    at: tuple[str | int, ...],
    vectors: bool,
    names: bool | list[str] | None = None,
    select: list[str] | None = None,
) -> Shown:
    """What is answered of documents; a vector that is named and does not exist is refused."""
    wanted = list(names) if isinstance(names, list) else []
    for name in wanted:
        if name not in catalog.by_name:
            available = ", ".join(map(repr, catalog.by_name)) or "none"
            message = f"No vector index {name!r} exists; available indexes: {available}."
            problems.add((*at, "return_vector_names"), "unknown_vector", message)
    for n, field in enumerate(select or ()):
        check_field(field, (*at, "select", n), problems)
    if vectors:
        wanted = list(catalog.by_name)
    return Shown(tuple(dict.fromkeys(wanted)), names is True, None if select is None else tuple(select))


def check_field(field: str, at: tuple[str | int, ...], problems: Problems) -> None:
    if not 0 < len(field) <= 255 or "" in field.split(".") or "\0" in field:
        problems.add(at, "bad_field", "A field is a text of 1 to 255 characters: names joined by single dots.")


# Keys of a new document's body that are not fields of its payload.
LINEAGE = (
    "content_hash",
    "document_schema_version",
    "features",
    "lineage_chain",
    "lineage_path",
    "root_bucket_id",
    "root_object_id",
    "source_collection_id",
    "source_document_id",
    "source_object_id",
    "source_type",
)
_NOTHING = (b"null", b"[]", b"{}", b'""')


def read_new(fields: Fields, collection: str, problems: Problems) -> Document:
    """The document that a body means; payload fields stand at its root, or under `payload`."""
    rest = dict(fields)
    for name in LINEAGE:
        if bytes(rest.pop(name, msgspec.Raw(b"null"))) not in _NOTHING:
            problems.add(("body", name), "not_offered", f"`{name}` is not offered by this server.")
    if not 1 <= len(collection) <= 128 or "\0" in collection:
        problems.add(("path", "collection"), "bad_name", "A collection_id has 1 to 128 characters, none U+0000.")
    document_id = _part(rest, "document_id", str, f"doc_{uuid4().hex}", problems)
    if _part(rest, "collection_id", str, collection, problems) != collection:
        message = f"The path says the collection is {collection!r}; leave `collection_id` out."
        problems.add(("body", "collection_id"), "bad_value", message)
    vectors = _part(rest, "vectors", dict[str, Any], {}, problems)
    metadata = _part(rest, "metadata", Fields, {}, problems)
    payload = _part(rest, "payload", Fields, {}, problems)
    acl: AclInput | None = _part(rest, "acl", AclInput, None, problems)
    for name in sorted(SYSTEM_KEYS & rest.keys()):
        problems.add(("body", name), "not_changeable", f"`{name}` is the system's and cannot be set.")
    for name in sorted(payload.keys() & rest.keys()):
        problems.add(("body", name), "conflicting_fields", f"`{name}` is given at the root and under `payload`.")
    encode = msgspec.json.encode
    listed = None if acl is None else acl.given()
    return Document(document_id, vectors, encode(rest | payload), encode(metadata), listed)


def _part(fields: Fields, name: str, type_: Any, default: Any, problems: Problems) -> Any:
    raw = fields.pop(name, None)
    if raw is None or bytes(raw) == b"null":
        return default
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, RecursionError) as error:
        problems.add(("body", name), "bad_type", f"{error}.")
        return default
