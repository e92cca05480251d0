"""Makes the demo's data from Debian's public application metadata (DEP-11, which is AppStream as YAML).

    pip install pyyaml
    python -m app.demo.make_data [--out app/demo/apps.jsonl.xz] [--suite bookworm] [--mirror URL]

It needs Debian (or a relative with `apt-get` and `debian-archive-keyring`), the network as far as a Debian
mirror, and PyYAML, which the server itself does not need. Neither root nor the `appstream` package is needed:
apt works in a temporary directory of its own, with a source list of its own, and checks Debian's signature.
The same mirror state gives the same bytes. Two files are written:

* `apps.jsonl.xz`, one application a line, sorted by id. `text` is what is embedded: name, summary, keywords.
* `queries.json` beside it: the hand-written queries of `queries_hand.json`, then the derived ones.

The derived queries. Applications are walked in the order of sha256("pgretrieve-demo:" + id); the query is the
second sentence of the description's paragraphs (lists are left out). It is taken only if it is 40 to 200
characters long, ends like a sentence, has no address in it, does not start with "This package", names neither
the application nor its package, is not part of the embedded text, and stands in no other application's
description. The first 60 are kept. Nothing looks at what a search would answer.
"""

import argparse
import hashlib
import html
import lzma
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.demo.data import APPS_FILE, QUERIES_FILE, App, Query
from app.demo.debian import Snapshot, fetch, read_stanzas

HERE = Path(__file__).parent
HAND_WRITTEN = HERE / "queries_hand.json"
DERIVED_QUERIES = 60
MAX_DESCRIPTION = 1200
MAIL_ADDRESS = re.compile(r"\s*[<(]?\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+[>)]?")

# The registered main categories of the freedesktop.org menu specification.
MAIN_CATEGORIES = frozenset(
    {
        "Audio",
        "AudioVideo",
        "Development",
        "Education",
        "Game",
        "Graphics",
        "Network",
        "Office",
        "Science",
        "Settings",
        "System",
        "Utility",
        "Video",
    }
)
# Given up when the application names a more specific main category as well.
GENERIC_CATEGORIES = frozenset({"AudioVideo", "System", "Utility"})


@dataclass(frozen=True)
class Parsed:
    """An application and the sentences of its description's paragraphs."""

    app: App
    sentences: tuple[str, ...]


# ---------------------------------------------------------------------------------------------- text


def clean(text: str) -> str:
    """NFC, one space between words, no control, format or unassigned characters."""
    spaced = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(c for c in spaced if not unicodedata.category(c).startswith("C")).strip()


class _Blocks(HTMLParser):
    """Splits a description into its paragraphs and list items."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[tuple[str, str]] = []
        self._kind = "p"
        self._parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag in ("p", "li", "ul", "ol"):
            self._end()
            self._kind = "li" if tag == "li" else "p"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "li", "ul", "ol"):
            self._end()
            self._kind = "p"

    def handle_data(self, data: str) -> None:
        self._parts.append(data)

    def close(self) -> None:
        super().close()
        self._end()

    def _end(self) -> None:
        text = clean("".join(self._parts))
        self._parts = []
        if text:
            self.blocks.append((self._kind, text))


def split_blocks(markup: str) -> list[tuple[str, str]]:
    """(`p` or `li`, plain text) of each block of a description."""
    parser = _Blocks()
    parser.feed(markup)
    parser.close()
    return parser.blocks


def plain(blocks: Iterable[tuple[str, str]]) -> str:
    """One line of text, list items bulleted, no mail addresses, at most `MAX_DESCRIPTION` characters."""
    text = " ".join(f"• {block}" if kind == "li" else block for kind, block in blocks)
    text = MAIL_ADDRESS.sub("", text)
    if len(text) <= MAX_DESCRIPTION:
        return text
    return text[: MAX_DESCRIPTION - 1].rsplit(" ", 1)[0].rstrip(" ,;:•-") + "…"


def split_sentences(blocks: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The sentences of the paragraphs; a paragraph's end always ends a sentence."""
    return tuple(
        sentence for kind, block in blocks if kind == "p" for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\"“(])", block)
    )


def embedded_text(name: str, summary: str, keywords: Sequence[str]) -> str:
    """What is embedded of an application: its name, its summary and its keywords, each as a sentence."""
    parts = [name, summary, ", ".join(keywords)]
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts if part)


def same_words(text: str) -> str:
    """Letters and digits only, to compare texts whatever their layout."""
    return re.sub(r"[\W_]+", "", text)


# ---------------------------------------------------------------------------------------------- applications


def main_category(categories: Sequence[str]) -> str | None:
    """The first main category the application names; Audio and Video go first, the generic ones last.

    [AudioVideo, Audio] is Audio, [AudioVideo, Audio, Video] and [AudioVideo] stay AudioVideo.
    """
    named = [category for category in categories if category in MAIN_CATEGORIES]
    media = {"Audio", "Video"} & set(named)
    if media:
        return "AudioVideo" if len(media) == 2 else media.pop()
    specific = [category for category in named if category not in GENERIC_CATEGORIES]
    if specific:
        return specific[0]
    return "AudioVideo" if "AudioVideo" in named else next(iter(named), None)


def unique(words: Iterable[str]) -> tuple[str, ...]:
    """Cleaned, without repetitions (whatever the case) and words of punctuation only, in the given order."""
    found: dict[str, str] = {}
    for word in (clean(word).strip('" ') for word in words):
        if same_words(word):
            found.setdefault(word.casefold(), word)
    return tuple(found.values())


def web_address(*candidates: str | None) -> str | None:
    """The first that is an http or https address."""
    return next((url for url in candidates if url and re.fullmatch(r"https?://[^\s<>\"]+", url)), None)


def _english(component: dict[str, Any], key: str) -> Any:
    return component.get(key, {}).get("C")


def parse_app(
    component: dict[str, Any], packages: dict[str, dict[str, str]], descriptions: dict[str, str]
) -> Parsed | None:
    """One DEP-11 component as an application, or None if it has no main category or no text."""
    package = packages.get(component["Package"])
    categories = unique(part for category in component.get("Categories", []) for part in category.split(";"))
    category = main_category(categories)
    name = clean(html.unescape(_english(component, "Name") or ""))
    summary = clean(html.unescape(_english(component, "Summary") or ""))
    blocks = split_blocks(_english(component, "Description") or "")
    if package is None or category is None or not (name and summary and blocks):
        return None
    keywords = unique(part for word in _english(component, "Keywords") or [] for part in re.split("[,;]", word))
    full = " ".join(block for _, block in blocks)
    of_package = descriptions.get(package.get("Description-md5", ""), "")
    source: Literal["metainfo", "package"] = "package" if same_words(full) == of_package else "metainfo"
    app = App(
        id=clean(component["ID"]),
        name=name,
        summary=summary,
        description=plain(blocks),
        description_source=source,
        category=category,
        categories=categories,
        keywords=keywords,
        package=component["Package"],
        homepage=web_address(component.get("Url", {}).get("homepage"), package.get("Homepage")),
        installed_size_kb=int(package.get("Installed-Size", "0")),
        license=clean(component.get("ProjectLicense", "")) or None,
        text=embedded_text(name, summary, keywords),
    )
    return Parsed(app, split_sentences(blocks))


def deduplicate(parsed: Iterable[Parsed]) -> list[Parsed]:
    """One application for each id, and one for each pair of name and summary; the first by (id, package)."""
    ids: set[str] = set()
    faces: set[tuple[str, str]] = set()
    kept = []
    for one in sorted(parsed, key=lambda one: (one.app.id, one.app.package)):
        face = (one.app.name.casefold(), one.app.summary.casefold())
        if one.app.id not in ids and face not in faces:
            ids.add(one.app.id)
            faces.add(face)
            kept.append(one)
    return kept


def read_apps(snapshot: Snapshot, progress: Progress) -> list[Parsed]:
    """All desktop applications of the snapshot."""
    import yaml  # type: ignore[import-untyped]  # this script's own requirement, not the server's

    packages = {stanza["Package"]: stanza for stanza in read_stanzas(snapshot.packages)}
    descriptions = {
        stanza["Description-md5"]: same_words(re.sub(r"^.*\n?", "", stanza["Description-en"], count=1))
        for stanza in read_stanzas(snapshot.translations)
    }
    documents = snapshot.components.count("\n---\n") + 1
    # The base loader leaves every scalar a string: no name becomes a number or a truth value.
    components = yaml.load_all(snapshot.components, Loader=yaml.CBaseLoader)
    found = []
    for component in progress.track(components, total=documents, description="reading components"):
        if component.get("Type") == "desktop-application":
            one = parse_app(component, packages, descriptions)
            if one is not None:
                found.append(one)
    return deduplicate(found)


# ---------------------------------------------------------------------------------------------- queries


def names_of(app: App) -> set[str]:
    """The words by which a sentence would give the application away."""
    last = re.sub(r"\.desktop$", "", app.id).rsplit(".", 1)[-1]
    return {app.name.casefold(), app.package.casefold(), last.casefold()}


def usable(sentence: str, app: App) -> bool:
    """Whether a sentence may be a derived query (see the module's text)."""
    folded = sentence.casefold()
    return (
        40 <= len(sentence) <= 200
        and sentence[-1] in ".!?"
        and "://" not in sentence
        and not folded.startswith("this package")
        and not any(name in folded for name in names_of(app))
        and folded.rstrip(".!?") not in app.text.casefold()
    )


def derive_queries(parsed: Sequence[Parsed]) -> list[Query]:
    """The second sentences of the first descriptions that serve, in an order fixed by a hash."""
    counts = Counter(sentence for one in parsed for sentence in set(one.sentences))
    queries: list[Query] = []
    for one in sorted(parsed, key=lambda one: hashlib.sha256(f"pgretrieve-demo:{one.app.id}".encode()).digest()):
        if len(queries) == DERIVED_QUERIES:
            break
        sentence = one.sentences[1] if len(one.sentences) > 1 else ""
        if sentence and counts[sentence] == 1 and usable(sentence, one.app):
            queries.append(Query(query=sentence, document_id=one.app.id, kind="derived"))
    return sorted(queries, key=lambda query: query.document_id)


def hand_written(ids: set[str], console: Console) -> list[Query]:
    """The committed queries; one whose application this suite does not have is left out, and said."""
    rows: list[dict[str, str]] = msgspec.json.decode(HAND_WRITTEN.read_bytes(), type=list[dict[str, str]])
    queries = [Query(query=row["query"], document_id=row["document_id"], kind="hand") for row in rows]
    for query in queries:
        if query.document_id not in ids:
            console.print(f"[yellow]left out, no such application:[/] {query.document_id}")
    return [query for query in queries if query.document_id in ids]


# ---------------------------------------------------------------------------------------------- writing


def pack_apps(apps: Iterable[App]) -> bytes:
    """JSON lines, packed with xz."""
    return lzma.compress(b"".join(msgspec.json.encode(app) + b"\n" for app in apps), preset=9 | lzma.PRESET_EXTREME)


def report(apps: Sequence[App], queries: Sequence[Query], size: int, console: Console) -> None:
    """Print what was made."""
    table = Table("category", "apps")
    for category, count in sorted(Counter(app.category for app in apps).items()):
        table.add_row(category, str(count))
    console.print(table)
    sources = Counter(app.description_source for app in apps)
    kinds = Counter(query.kind for query in queries)
    console.print(f"{len(apps)} applications, {size:,} bytes; description from {dict(sources)}; queries {dict(kinds)}")


def main() -> None:
    """Fetch, make, write."""
    parser = argparse.ArgumentParser(description="Make the demo's data from Debian's application metadata.")
    parser.add_argument("--out", type=Path, default=HERE / APPS_FILE, help="queries.json is written beside it")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument("--suite", default="bookworm")
    arguments = parser.parse_args()
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        fetching = progress.add_task(f"fetching {arguments.suite}", total=None)
        snapshot = fetch(arguments.mirror, arguments.suite)
        progress.update(fetching, total=1, completed=1)
        parsed = read_apps(snapshot, progress)
        writing = progress.add_task("writing", total=2)
        apps = [one.app for one in parsed]
        packed = pack_apps(apps)
        arguments.out.write_bytes(packed)
        progress.advance(writing)
        queries = hand_written({app.id for app in apps}, console) + derive_queries(parsed)
        lines = ",\n".join("  " + msgspec.json.encode(query).decode() for query in queries)
        arguments.out.with_name(QUERIES_FILE).write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        progress.advance(writing)
    header = re.search(r"^Time: '?(\S+?)'?$", snapshot.components, re.MULTILINE)
    console.print(f"index of {snapshot.release_date}; components of {header[1] if header else 'unknown'}")
    report(apps, queries, len(packed), console)


if __name__ == "__main__":
    main()
