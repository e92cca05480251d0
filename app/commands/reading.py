"""What an import reads: a file, or a table or collection of a database, for which it may make the namespace."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import click
import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from app import moving
from app.api.namespace_models import NamespaceId
from app.db.engine import transaction
from app.domain.catalog import namespaces
from app.domain.catalog.namespaces import NewVector
from app.domain.documents.importing import Manner
from app.errors import InvalidRequest, NotFound, Problem, Problems
from app.moving import files, sources
from app.moving.rows import Layout, Rows
from app.moving.sources import At, Source
from app.retrieval.catalog import VectorConfig
from app.settings import Settings

# What tells one file from another: its size, and so much of its beginning and of its end.
LOOKED_AT = 1_000_000


class Reading(Protocol):
    """What is read: its name, what tells it from others, its chunks, how far it is read."""

    name: str

    def identity(self) -> str: ...

    def read(self, configs: Mapping[str, VectorConfig], at: At) -> Iterator[Rows]: ...

    def progress(self) -> tuple[float, int]:
        """The part that is read, and the rows of all where they are known (else 0)."""
        ...

    def close(self) -> None: ...


class File:
    """A file of one of the formats."""

    def __init__(self, path: Path, form: str, layout: Layout, columns: Sequence[str], manner: Manner) -> None:
        self.name, self._form, self._layout, self._columns = path.name, form, layout, columns
        self._how = f"{form}\0{layout!r}\0{tuple(columns)!r}\0{manner!r}"
        self._size, self._rows = path.stat().st_size, 0
        self._file = path.open("rb")
        if form == "parquet":
            try:
                self._rows = files.columnar().rows_in_parquet(self._file)
            except BaseException:
                self.close()
                raise

    def identity(self) -> str:
        found = hashlib.sha256(f"{self._size}\0{self._how}".encode())
        for place in (0, max(0, self._size - LOOKED_AT)):
            self._file.seek(place, os.SEEK_SET)
            found.update(self._file.read(LOOKED_AT))
        return found.hexdigest()

    def read(self, configs: Mapping[str, VectorConfig], at: At) -> Iterator[Rows]:
        self._file.seek(0)
        return moving.read(self._form, self._file, configs, self._layout, skip=at.row, columns=self._columns)

    def progress(self) -> tuple[float, int]:
        if self._form == "parquet":
            return 0.0, self._rows
        done = not self._size or self._file.closed
        return (1.0 if done else min(self._file.tell() / self._size, 1.0)), 0

    def close(self) -> None:
        self._file.close()


@dataclass(slots=True)
class Elsewhere:
    """A table or collection of a database."""

    source: Source
    layout: Layout
    manner: Manner
    metrics: Mapping[str, str] = field(default_factory=dict)  # of indexes that are made, where the source is not asked
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.source.name

    def identity(self) -> str:
        return hashlib.sha256(f"{self.name}\0{self.layout!r}\0{self.manner!r}".encode()).hexdigest()

    def read(self, configs: Mapping[str, VectorConfig], at: At) -> Iterator[Rows]:
        chosen = sources.taken(self.source, configs, self.layout)
        for vector in self.source.vectors:
            if vector.column not in chosen:
                message = f"The vectors {vector.column!r} are left out: no index takes them (--vector INDEX=NAME)."
                click.echo(message, err=True)
        for message in self.source.left_out:
            click.echo(message, err=True)
        return self.source.read(configs, at)

    def progress(self) -> tuple[float, int]:
        return 0.0, self.source.total

    def close(self) -> None:
        self.source.close()

    async def make_namespace(self, engine: AsyncEngine, settings: Settings, namespace: str) -> None:
        """The namespace, where there is none, with an index for each vector of the source."""
        async with transaction(engine, settings) as conn:
            try:
                await namespaces.load_catalog(conn, namespace)
            except NotFound:
                vectors = self._wanted()
                await namespaces.create_standalone(conn, settings, namespace_id=_checked(namespace), vectors=vectors)

    def _wanted(self) -> list[NewVector]:
        named = {column: name for name, column in self.layout.vectors.items()}
        made, problems = [], Problems()
        for vector in self.source.vectors:
            name = named.get(vector.column, vector.column)
            metric = self.metrics.get(name, vector.metric)
            if metric is None:
                message = (
                    f"How {vector.column!r} is compared is not known: {vector.why}. Say it: --metric {name}=cosine."
                )
                problems.add(("metric",), "unknown_metric", message)
            made.append(NewVector(name, vector.dimension, metric or "cosine", kind=vector.kind))
        problems.refuse()
        return made


def _checked(namespace: str) -> str:
    try:
        return msgspec.convert(namespace, NamespaceId)
    except msgspec.ValidationError:
        message = "The id of a namespace has letters, digits, - and _, at most 128, and begins with a letter or digit."
        raise InvalidRequest([Problem(("namespace",), "bad_name", message)]) from None
