"""The committed demo data keeps what the demo and the quality figures rely on."""

import unicodedata
from collections import Counter
from functools import cache
from importlib.resources import files

import pytest

from app.demo import debian, make_data
from app.demo.data import APPS_FILE, App, Query, load_apps, load_queries


@cache
def apps() -> dict[str, App]:
    return {app.id: app for app in load_apps()}


@cache
def queries() -> tuple[Query, ...]:
    return tuple(load_queries())


def test_counts() -> None:
    assert len(load_apps()) >= 1800
    counts = Counter(app.category for app in load_apps())
    assert counts["Audio"] >= 100
    assert counts.keys() <= make_data.MAIN_CATEGORIES
    kinds = Counter(query.kind for query in queries())
    assert kinds["hand"] >= 40
    assert kinds["derived"] >= 40


def test_ids_are_unique_and_sorted() -> None:
    ids = [app.id for app in load_apps()]
    assert ids == sorted(set(ids))


def test_no_two_apps_look_the_same() -> None:
    faces = Counter((app.name.casefold(), app.summary.casefold()) for app in load_apps())
    assert max(faces.values()) == 1


def test_every_text_is_there_and_clean() -> None:
    for app in load_apps():
        for text in (app.id, app.name, app.summary, app.description, app.package, app.text, *app.keywords):
            assert text.strip()
            assert text == make_data.clean(text)
            assert unicodedata.is_normalized("NFC", text)
        assert len(app.description) <= make_data.MAX_DESCRIPTION
        assert app.installed_size_kb > 0
        assert app.category in app.categories
        assert app.homepage is None or app.homepage.startswith(("http://", "https://"))


def test_embedded_text_is_name_summary_keywords() -> None:
    for app in load_apps():
        assert app.text == make_data.embedded_text(app.name, app.summary, app.keywords)


def test_queries_point_to_apps_and_are_distinct() -> None:
    assert {query.document_id for query in queries()} <= apps().keys()
    assert len({query.query for query in queries()}) == len(queries())


def test_no_query_names_its_app() -> None:
    for query in queries():
        assert apps()[query.document_id].name.casefold() not in query.query.casefold()


def test_derived_queries_are_not_embedded() -> None:
    embedded = "\n".join(make_data.same_words(app.text).casefold() for app in load_apps())
    for query in queries():
        assert make_data.same_words(query.query).casefold() not in embedded


def test_derived_queries_come_from_the_description() -> None:
    for query in queries():
        if query.kind == "derived":
            app = apps()[query.document_id]
            assert make_data.usable(query.query, app)
            assert query.query in app.description


def test_licence_and_size() -> None:
    folder = files("app.demo")
    licence = folder.joinpath("LICENSE.md").read_text(encoding="utf-8")
    assert f"{len(apps()):,} desktop applications" in licence
    for source, count in Counter(app.description_source for app in load_apps()).items():
        assert f"**{count:,} descriptions" in licence, source
    assert len(folder.joinpath(APPS_FILE).read_bytes()) < 500_000


@pytest.mark.parametrize(
    ("categories", "category"),
    [
        (["AudioVideo", "Audio", "Midi"], "Audio"),
        (["Video", "AudioVideo"], "Video"),
        (["AudioVideo", "Audio", "Video"], "AudioVideo"),
        (["AudioVideo"], "AudioVideo"),
        (["AudioVideo", "Utility"], "AudioVideo"),
        (["Utility", "Graphics"], "Graphics"),
        (["System", "Utility"], "System"),
        (["Education", "Science"], "Education"),
        (["Qt", "Game"], "Game"),
        (["Geoscience"], None),
    ],
)
def test_main_category(categories: list[str], category: str | None) -> None:
    assert make_data.main_category(categories) == category


def test_markup_becomes_plain_text() -> None:
    blocks = make_data.split_blocks(
        "<p>It plays\n  a &lt;song&gt;. And <em>more</em>.</p><ul><li>one</li><li>two</li></ul>"
    )
    assert make_data.plain(blocks) == "It plays a <song>. And more. • one • two"
    assert make_data.split_sentences(blocks) == ("It plays a <song>.", "And more.")


def test_long_descriptions_are_cut_at_a_word() -> None:
    text = make_data.plain([("p", "word " * 400)])
    assert len(text) <= make_data.MAX_DESCRIPTION
    assert text.endswith("word…")


def test_mail_addresses_are_removed() -> None:
    assert make_data.plain([("p", "By Jo <jo@example.org>, and Al (al@example.com).")]) == "By Jo, and Al."


def test_keywords_are_unique_and_in_order() -> None:
    assert make_data.unique(["b", " a ", "", "B", "...", '"c']) == ("b", "a", "c")


def test_stanzas() -> None:
    text = "Package: a\nDescription-en: short\n long\n .\n more\n\nPackage: b\n"
    assert list(debian.read_stanzas(text)) == [
        {"Package": "a", "Description-en": "short\n long\n .\n more"},
        {"Package": "b"},
    ]
