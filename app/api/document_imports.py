"""Documents as a stream of JSON lines, stored while they come: any number of them in one request. Or as a Parquet file,
which is read from its end: so it lies on the disk first."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from litestar import Router, post
from litestar.params import FromPath, FromQuery

from app.api.document_models import AnyRequest
from app.api.uploads import prompt
from app.api.watch import renew
from app.api.wire import RuntimeDep
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog, lock_catalog
from app.domain.documents import importing
from app.domain.documents.bulk import Refused
from app.domain.documents.importing import MOST_TOLD, Manner
from app.domain.runtime import Runtime
from app.errors import ExtractionFailed, InvalidRequest, TooLarge
from app.moving import files, jsonl
from app.moving.rows import Layout

# So much is held in memory, and stored in one transaction.
LINES, BYTES = 500, 4_000_000
PARQUET = ("application/vnd.apache.parquet", "application/x-parquet")


class LineProblem(msgspec.Struct, kw_only=True):
    """What is wrong with a line, which is not stored: its number, from 1, and the id of its document."""

    line: int
    document_id: str | None
    type: str
    message: str


class Imported(msgspec.Struct, kw_only=True):
    """How many lines came, how many documents were stored, and the first 1,000 problems of the others."""

    lines: int = 0
    stored: int = 0
    problem_count: int = 0
    problems: list[LineProblem] = []


@post(
    "/namespaces/{namespace_id:str}/documents/import",
    status_code=200,
    scope="write",
    operation_id="import_documents",
    request_max_body_size=None,  # stored while it comes
)
async def import_documents(
    namespace_id: FromPath[str],
    request: AnyRequest,
    runtime: RuntimeDep,
    collection_id: FromQuery[Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None] = None,
) -> Imported:
    """Store documents that come as JSON lines (`application/x-ndjson`) or as a Parquet file
    (`application/vnd.apache.parquet`), each as an upsert takes it. A row of the file counts as a line.

    Some hundreds of lines are one transaction; lines that are wrong are left out and told. What was stored before the
    stream broke off stays: send it again, for each document replaces the one of its id.
    """
    answer = Imported(problems=[])
    async with transaction(runtime.engine, runtime.settings) as conn:
        await load_catalog(conn, namespace_id)
    manner = Manner(collection_id, strict=False)
    if request.content_type[0].lower() in PARQUET:
        await _parquet(runtime, namespace_id, request, manner, answer)
        return answer
    async for lines in _pieces(prompt(request.stream()), runtime.settings.max_body_bytes):
        await _store(runtime, namespace_id, lines, manner, answer)
    return answer


async def _parquet(runtime: Runtime, namespace_id: str, request: AnyRequest, manner: Manner, answer: Imported) -> None:
    """Store the rows of a file, once it is here whole."""
    columnar = files.columnar()
    with tempfile.TemporaryFile() as file:
        size = 0
        async for chunk in prompt(request.stream()):
            size += len(chunk)
            if size > runtime.settings.max_import_bytes:
                most = runtime.settings.max_import_bytes
                raise TooLarge(f"The file has more than {most} bytes (PGRETRIEVE_MAX_IMPORT_BYTES).")
            await asyncio.to_thread(file.write, chunk)
        file.seek(0)
        async with transaction(runtime.engine, runtime.settings) as conn:
            configs = (await load_catalog(conn, namespace_id)).by_name
        chunks = columnar.read_parquet(file, configs, Layout(), 0, rows=LINES)
        try:
            while (rows := await asyncio.to_thread(next, chunks, None)) is not None:
                async with transaction(runtime.engine, runtime.settings) as conn:
                    catalog = await lock_catalog(conn, namespace_id, exclusive=False)
                    told = await importing.store_chunk(conn, catalog, runtime.settings, rows, manner)
                _add(answer, *told)
                answer.lines = rows.last
                renew()
        except ExtractionFailed as error:
            error.details |= {"stored": answer.stored, "lines": answer.lines}
            raise
        except InvalidRequest as error:
            raise InvalidRequest(error.problems, stored=answer.stored, lines=answer.lines) from error


async def _pieces(chunks: AsyncIterator[bytes], longest: int) -> AsyncIterator[list[bytes]]:
    """The lines of a stream, some hundreds at a time."""
    rest, lines, size = bytearray(), list[bytes](), 0
    async for chunk in chunks:
        rest += chunk
        if b"\n" in chunk:
            *whole, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            lines += whole
            size += sum(map(len, whole))
        if len(rest) > longest:
            raise TooLarge(f"A line has more than {longest} bytes (PGRETRIEVE_MAX_BODY_BYTES).")
        while len(lines) >= LINES or (lines and size >= BYTES):
            yield lines[:LINES]
            lines = lines[LINES:]
            size = sum(map(len, lines))
    if rest:
        lines.append(bytes(rest))
    for at in range(0, len(lines), LINES):
        yield lines[at : at + LINES]


async def _store(runtime: Runtime, namespace_id: str, lines: list[bytes], manner: Manner, answer: Imported) -> None:
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await lock_catalog(conn, namespace_id, exclusive=False)
        for rows in jsonl.read(lines, catalog.by_name, Layout(), 0, first=answer.lines + 1):
            try:
                stored, refused = await importing.store_chunk(conn, catalog, runtime.settings, rows, manner)
            except InvalidRequest as error:
                raise InvalidRequest(error.problems, stored=answer.stored, lines=answer.lines) from error
            _add(answer, stored, refused)
    answer.lines += len(lines)


def _add(answer: Imported, stored: int, refused: list[Refused]) -> None:
    answer.stored += stored
    answer.problem_count += len(refused)
    room = max(0, MOST_TOLD - len(answer.problems))
    answer.problems += [
        LineProblem(line=each.number, document_id=each.document_id, type=each.code, message=each.message)
        for each in refused[:room]
    ]


router = Router("/", route_handlers=[import_documents], tags=["Documents"])
