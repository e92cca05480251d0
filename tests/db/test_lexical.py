"""Lexical search against a reference implementation of BM25, under writes of every kind, and its jobs."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

import bm25s
import msgspec
import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db.engine import create_engine, raw, transaction
from app.demo.data import load_apps
from app.domain.catalog import lexical, namespaces
from app.domain.documents import documents
from app.domain.documents.documents import Document
from app.jobs.tasks import connecting
from app.retrieval.catalog import Catalog
from app.retrieval.lexical import lexical_search
from app.retrieval.plan import Binds, render
from app.retrieval.searches.bm25 import Lexical
from app.retrieval.words import parse
from app.settings import Settings
from tests.state import blocked

# Of two kinds: frequent ones, and those that someone would type.
QUERIES = (
    "game", "play music", "application for the desktop", "use files and support", "simple editor for text",
    "photo viewer", "graphical interface to version control", "learn to type", "3D modelling", "strategy game war",
    "music player with playlists and equalizer", "tool", "program that allows you to create", "chat", "dictionary",
    "KDE", "GNOME application that provides a simple interface to manage your files", "astronomy planets stars",
)  # fmt: skip
PAYLOAD = msgspec.json.Encoder()


class Library:
    """A namespace of texts with postings, and the same texts for the reference."""

    def __init__(self, conninfo: str, engine: AsyncEngine, settings: Settings) -> None:
        self.conninfo, self.engine, self.settings = conninfo, engine, settings
        self.name = f"lexical{uuid4().hex[:12]}"
        self.texts: dict[str, str] = {}

    async def create(self, texts: dict[str, str], *fields: str) -> None:
        async with transaction(self.engine, self.settings) as conn:
            await namespaces.create_standalone(conn, self.settings, namespace_id=self.name, vectors=[])
            await lexical.declare(conn, self.name, lexical.fields_of(dict.fromkeys(fields)))
        await self.upsert(texts)

    async def catalog(self) -> Catalog:
        async with transaction(self.engine, self.settings) as conn:
            return await namespaces.load_catalog(conn, self.name)

    async def upsert(self, texts: dict[str, str]) -> None:
        self.texts |= texts
        given = [Document(name, {}, PAYLOAD.encode({"text": text})) for name, text in texts.items()]
        async with transaction(self.engine, self.settings) as conn:
            await documents.upsert(conn, await namespaces.load_catalog(conn, self.name), given, self.settings)

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo) as conn:
            found = conn.execute(sql.SQL(statement).format(schema=sql.Identifier(self.name)), values)
            return found.fetchall() if found.description else []

    async def search(self, query: str, top_k: int = 10, **more: Any) -> list[tuple[str, float]]:
        catalog, binds = await self.catalog(), Binds()
        text = render(lexical_search(catalog, Lexical(query, top_k, **more), binds, "q"))
        values = {name: bind.convert(bind.value) for name, bind in binds.found.items()}
        async with transaction(self.engine, self.settings) as conn:
            return await (await (await raw(conn)).execute(text, values)).fetchall()

    def lexemes(self, texts: Sequence[str]) -> list[list[str]]:
        """The lexemes that PostgreSQL finds, each as often as it occurs."""
        query = """
            SELECT coalesce((SELECT array_agg(lexeme) FROM unnest(to_tsvector('english', text)),
                LATERAL generate_series(1, cardinality(positions))), '{{}}')
            FROM unnest(%s::text[]) WITH ORDINALITY AS t (text, n) ORDER BY n"""
        return [row[0] for row in self.execute(query, list(texts))]


class Reference:
    """bm25s, fed with the same lexemes."""

    def __init__(self, library: Library) -> None:
        self.library = library
        corpus = dict(zip(library.texts, library.lexemes(list(library.texts.values())), strict=True))
        self.names = [name for name, lexemes in corpus.items() if lexemes]
        self.index = bm25s.BM25(k1=1.2, b=0.75, method="lucene", dtype="float64")
        self.index.index([corpus[name] for name in self.names], show_progress=False)

    def search(self, query: str, top_k: int = 10) -> list[tuple[str, float]]:
        known = [lexeme for lexeme in self.library.lexemes([query])[0] if lexeme in self.index.vocab_dict]
        scores = self.index.get_scores(known) if known else np.zeros(len(self.names))
        best = sorted((-score, name) for score, name in zip(scores.tolist(), self.names, strict=True) if score > 0)
        return [(name, -score) for score, name in best[:top_k]]


async def assert_as_the_reference(library: Library, queries: Sequence[str] = QUERIES) -> None:
    reference = Reference(library)
    for query in queries:
        expected, found = reference.search(query), await library.search(query)
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], rel=1e-9)
        assert found == await library.search(query, fields=["text"])
        # Where scores differ by rounding alone, either order is right.
        ranks = {name: round(score, 9) for name, score in reference.search(query, len(library.texts))}
        assert [ranks[name] for name, _ in found] == [round(score, 9) for _, score in expected]


@pytest.fixture
async def library(conninfo: str, engine: AsyncEngine, settings: Settings) -> AsyncIterator[Library]:
    made = Library(conninfo, engine, settings)
    yield made
    async with transaction(engine, settings) as conn:
        await namespaces.delete(conn, made.name)


async def test_order_and_scores_are_those_of_the_reference_through_updates_deletions_and_merges(
    library: Library,
) -> None:
    texts = {app.id: f"{app.name} {app.summary} {app.description}" for app in load_apps()}
    names = list(texts)
    await library.create({}, "text")
    for at in range(0, len(names), 500):
        await library.upsert({name: texts[name] for name in names[at : at + 500]})
    await assert_as_the_reference(library)

    pick = random.Random(1)
    changed = pick.sample(names, 150)
    await library.upsert({name: texts[other] for name, other in zip(changed, reversed(changed), strict=True)})
    await library.upsert({name: texts[name] for name in names[:50]})  # as they were
    await library.upsert(dict.fromkeys(names[50:55], "the"))  # nothing but stop words
    gone = pick.sample(names[60:], 150)
    library.execute("DELETE FROM {schema}.documents WHERE document_id = ANY(%s)", gone)
    library.texts = {name: text for name, text in library.texts.items() if name not in gone}
    await assert_as_the_reference(library)

    postings = "SELECT count(*), sum(change * cardinality(numbers)) FROM {schema}.lexical_postings"
    ((before, live),) = library.execute(postings)
    library.execute("SELECT pgretrieve.lexical_merge(%s)", library.name)
    ((after, still),) = library.execute(postings)
    assert (after < before, still) == (True, live)
    await assert_as_the_reference(library)
    library.execute("TRUNCATE {schema}.documents CASCADE")
    assert await library.search("game") == []


async def test_postings_and_documents_give_the_same_scores(library: Library) -> None:
    await library.create({app.id: app.description for app in load_apps()[:200]}, "text")
    queries = ["play music", '"free software" game', "play* mus* the*", '"the game" of', "a*", 'x" "y']
    by_postings = [await library.search(query, 1_000) for query in queries]
    library.execute("UPDATE pgretrieve.lexical_indexes SET state = 'building' WHERE namespace_id = %s", library.name)
    assert by_postings == [await library.search(query, 1_000) for query in queries]
    assert all(found for found in by_postings[:-1])


async def test_concurrent_writers_neither_wait_for_each_other_nor_lose_a_word(library: Library) -> None:
    await library.create({f"d{n}": "one two" for n in range(20)}, "text")

    async def write(writer: int) -> None:
        for turn in range(10):
            # The same words in every document, of its own and of the other writer.
            await library.upsert({f"w{writer}-{turn}": "one two three", f"d{turn}": f"one writer{writer}"})

    await asyncio.gather(write(1), write(2))
    found = dict(await library.search("one", 100))
    assert len(found) == 40
    totals = library.execute("SELECT sum(documents)::integer, sum(lexemes)::integer FROM {schema}.lexical_totals")
    assert totals == [(40, 20 * 3 + 20 * 2)]
    library.texts = dict(library.execute("SELECT document_id, payload->>'text' FROM {schema}.documents"))
    await assert_as_the_reference(library, ["one", "two", "three one", "writer1", "writer2 two"])

    # A writer that has not committed holds up no other, and is not seen.
    async with transaction(library.engine, library.settings) as conn:
        catalog = await namespaces.load_catalog(conn, library.name)
        text = PAYLOAD.encode({"text": "one unseen"})
        await documents.upsert(conn, catalog, [Document("open", {}, text)], library.settings)
        await asyncio.wait_for(library.upsert({"beside": "one unseen"}), 5)
        assert [name for name, _ in await library.search("unseen")] == ["beside"]
    assert sorted(name for name, _ in await library.search("unseen")) == ["beside", "open"]


async def test_a_large_namespace_is_indexed_by_the_job_while_searches_are_complete(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical, "BATCH", 7)
    await library.create({f"d{n:02}": f"word number{n}" for n in range(30)})
    library.execute("SELECT 1")
    async with transaction(library.engine, library.settings) as conn:
        await lexical.declare(conn, library.name, lexical.fields_of({"text": None}))
    before = await library.catalog()
    assert ([field.name for field in before.lexical_fields], before.lexical_ready) == (["text"], False)
    assert len(await library.search("word", 100)) == 30
    await library.upsert({"d03": "word other", "new": "word"})
    library.execute("DELETE FROM {schema}.documents WHERE document_id = 'd29'")
    del library.texts["d29"]
    assert len(await library.search("word", 100)) == 30
    async with connecting(library.conninfo, library.settings) as conn:
        assert await lexical.build(conn, library.name)
    after = await library.catalog()
    assert (after.lexical_ready, after.version) == (True, before.version + 1)
    await assert_as_the_reference(library, ["word", "number3", "other word", "number29"])
    jobs = "SELECT count(*) FROM pgretrieve_queue.procrastinate_jobs WHERE args->>'namespace_id' = %s"
    assert library.execute(f"{jobs} AND task_name = 'build_lexical_index'", library.name) == [(1,)]


async def test_a_job_that_was_overtaken_by_another_declaration_says_nothing_is_ready(library: Library) -> None:
    await library.create({f"d{n}": "word" for n in range(3)}, "text")
    again = "UPDATE pgretrieve.lexical_indexes SET state = 'building' WHERE namespace_id = %s"
    library.execute(again, library.name)
    engine = create_engine(library.conninfo, library.settings)
    async with engine.connect() as holder:
        pid = (await holder.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
        await holder.exec_driver_sql(f'SELECT 1 FROM {library.name}."documents" FOR UPDATE')

        async def job() -> bool:
            async with connecting(library.conninfo, library.settings) as conn:
                return await lexical.build(conn, library.name)

        building = asyncio.create_task(job())
        await blocked(library.conninfo, pid)
        library.execute(again.replace("state =", "created_at = clock_timestamp(), state ="), library.name)
        await holder.rollback()
        assert await building is False
    await engine.dispose()
    assert not (await library.catalog()).lexical_ready


async def test_postings_are_merged_when_enough_was_written(library: Library) -> None:
    await library.create({}, "text")
    for n in range(25):
        await library.upsert({f"d{n}-{m}": "one two" for m in range(5)})
    async with connecting(library.conninfo, library.settings) as conn:
        assert library.name in await lexical.merge_due(conn)
        assert library.name not in await lexical.merge_due(conn)
    assert library.execute("SELECT count(*) FROM {schema}.lexical_postings") == [(2,)]
    assert len(await library.search("one", 1_000)) == 125


TRICKY = st.text(st.sampled_from("abc \"*-/:.@\\'&|!()<>\u00e4\u4e2d\ud800\0%"), max_size=60) | st.text(max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TRICKY, min_size=1, max_size=20))
async def test_no_query_is_an_error(engine: AsyncEngine, queries: list[str]) -> None:
    """What PostgreSQL makes of words, phrases and prefixes; the searches' own tests read the same statement."""
    async with engine.connect() as conn:
        for query in queries:
            asked = parse(query, 16)
            assert len(asked.words.split()) <= 16
            values = (asked.words, asked.phrases, asked.prefixes)
            await (await raw(conn)).execute(
                "SELECT to_tsvector('english', %s::text), ARRAY(SELECT phraseto_tsquery('english', p)"
                " FROM unnest(%s::text[]) p), ARRAY(SELECT to_tsvector('english', p) FROM unnest(%s::text[]) p)",
                values,
            )


@pytest.mark.parametrize(
    "word", ["w{n}-x{n}-y{n}", "http://h{n}.de/p{n}?q={n}", "{n}@x{n}.org", "\U00020000{n}-\U00020001{n}"]
)
async def test_the_longest_texts_are_taken_whatever_they_hold(library: Library, word: str) -> None:
    count = library.settings.max_document_bytes // (len(word.format(n=1).encode()) + 8) // 2
    text = "first " + " ".join(word.format(n=n) for n in range(count))
    await library.create({"long": text, "short": "first"}, "text")
    assert [name for name, _ in await library.search("first")] == ["short", "long"]
