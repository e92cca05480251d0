"""Texts of every kind of file, as documents."""

import io
import zipfile
from pathlib import Path
from typing import Any

import docx
import pytest

from app.errors import ExtractionFailed
from app.extractors.base import Blob, Extracted, Rejected, Text
from tests.extractors.extracting import (
    assembled,
    documents,
    extractor,
    items,
    manual,
    pdf,
    problems_of,
    stream,
    texts,
    word,
)

MARKDOWN = """Intro.

# Guide

Read me.

## Set up *now*

Run it:

```sh
# no heading
make demo
```

Then wait.

Old style
---------
end
"""
PAGE = """<!-- made by hand --><!DOCTYPE html><html><head><title>T</title><style>p {}</style></head><body>
<nav>Home | About</nav>
<main><h1>Caf\xe9 <i>menu</i></h1><p>Hot   <b>dr</b>inks<br>daily.</p><ul><li>tea<li>mate</ul>
<table><tr><td>tea</td><td>2 &euro;</td></tr></table><script>alert(1)</script>
<pre><code class="language-py">if x:
    y()</code></pre><p hidden>secret</p><h2>Hours</h2>9 to 5<aside>ads</aside></main><footer>imprint</footer>"""


def failure(blob: Blob, **settings: Any) -> str:
    with pytest.raises(ExtractionFailed) as failed:
        items(extractor("text_extractor", split_by="words"), blob, **settings)
    assert not failed.value.retryable
    assert len(failed.value.message) > 20
    return failed.value.error_code


def test_a_document_tells_its_place() -> None:
    found = documents(extractor("text_extractor", split_by="words", chunk_size=2), Blob.of("one two three"))
    assert found == [
        Extracted(
            key="0000",
            payload={"text": "one two", "start": 0, "end": 7, "chunk_index": 0, "chunk_total": 2},
            inputs={"embedding": Text("one two")},
        ),
        Extracted(
            key="0001",
            payload={"text": "three", "start": 8, "end": 13, "chunk_index": 1, "chunk_total": 2},
            inputs={"embedding": Text("three")},
        ),
    ]


def test_markdown_is_split_at_headings_and_code_and_embedded_with_what_is_above() -> None:
    found = documents(extractor("text_extractor", split_by="markdown"), Blob.of(MARKDOWN, "text/markdown"))
    assert [(d.payload.get("heading_path"), d.payload["chunk_kind"], d.payload["text"]) for d in found] == [
        (None, "section", "Intro."),
        (["Guide"], "section", "# Guide\n\nRead me."),
        (["Guide", "Set up *now*"], "section", "## Set up *now*\n\nRun it:"),
        (["Guide", "Set up *now*"], "code", "```sh\n# no heading\nmake demo\n```"),
        (["Guide", "Set up *now*"], "section", "Then wait."),
        (["Guide", "Old style"], "section", "Old style\n---------\nend"),
    ]
    assert [d.payload.get("code_language") for d in found] == [None, None, None, "sh", None, None]
    assert found[2].inputs == {"embedding": Text("Guide\n\n## Set up *now*\n\nRun it:")}
    assert found[4].inputs == {"embedding": Text("Guide > Set up *now*\n\nThen wait.")}


@pytest.mark.parametrize("content_type", [None, "text/html; charset=utf-8", "application/octet-stream"])
def test_html_is_read_as_its_readers_do(content_type: str | None) -> None:
    blob = Blob(content=PAGE.encode(), content_type=content_type)
    assert texts(blob) == [
        "Café menu\n\nHot drinks\ndaily.\n\ntea\nmate\n\ntea\t2 €\n\nif x:\n    y()\n\nHours\n\n9 to 5"
    ]
    sections = documents(extractor("text_extractor", split_by="markdown"), blob)
    assert [(d.payload["heading_path"], d.payload.get("code_language")) for d in sections] == [
        (["Café menu"], None),
        (["Café menu"], "py"),
        (["Café menu", "Hours"], None),
    ]


def test_html_without_main_is_read_but_for_what_surrounds_the_text() -> None:
    assert texts(Blob(content=b"<body><header>H</header><nav>N</nav><p>a<p>b<div>c</div>d<footer>F</footer>")) == [
        "H\n\na\n\nb\n\nc\n\nd"
    ]


def test_pdf_by_pages() -> None:
    blob = Blob(content=pdf("The first page says hello.", "", "The third one says good bye."))
    found = documents(extractor("text_extractor", split_by="pages", chunk_size=1), blob)
    assert [(d.payload["page_number"], d.payload["text"]) for d in found] == [
        (1, "The first page says hello."),
        (3, "The third one says good bye."),
    ]
    words = documents(extractor("text_extractor", split_by="words", chunk_size=8), blob)
    assert [(d.payload["page_number"], d.payload["text"]) for d in words] == [
        (1, "The first page says hello.\n\n\n\nThe third one"),
        (3, "says good bye."),
    ]


def test_docx_with_headings_tables_and_pages() -> None:
    found = documents(extractor("text_extractor", split_by="markdown"), Blob(content=manual()))
    assert [(d.payload["page_number"], d.payload["heading_path"], d.payload["text"]) for d in found] == [
        (1, ["Amplifier"], "Amplifier\n\nRead this first."),
        (1, ["Care"], "Care\n\nKeep it dry."),
        (2, ["Care", "Fuses"], "Fuses\n\nRatings\nmain\t2 A"),
    ]


def test_docx_without_breaks_has_no_pages() -> None:
    made = docx.Document()
    made.add_paragraph("One.")
    [found] = documents(extractor("text_extractor"), Blob(content=word(made)))
    assert "page_number" not in found.payload


@pytest.mark.parametrize(
    ("content", "content_type", "text"),
    [
        ("naïve".encode(), None, "naïve"),
        ("\ufeffnaïve".encode(), None, "naïve"),
        ("naïve".encode("utf-16"), None, "naïve"),
        ("naïve".encode("utf-32"), None, "naïve"),
        ("naïve".encode("latin-1"), "text/plain; charset=ISO-8859-1", "naïve"),
        ("naïve".encode("utf-16-le"), "text/plain; charset=utf-16-le", "naïve"),
        ("naïve".encode(), "text/plain; charset=idna", "naïve"),
        ("naïve".encode(), "text/plain; charset=nonsense", "naïve"),
        (
            "Съешь же ещё этих мягких французских булок".encode("cp1251"),
            None,
            "Съешь же ещё этих мягких французских булок",
        ),
        ('<meta charset="shift_jis"><p>日本'.encode("shift_jis"), "text/html", "日本"),
        (b"a\r\nb\rc", None, "a\nb\nc"),
        (b"%PD is no PDF", None, "%PD is no PDF"),
        (b"# no heading", "text/plain", "# no heading"),
        (b"<!doctype html><p>source", "text/plain", "<!doctype html><p>source"),
    ],
)
def test_encodings_and_kinds(content: bytes, content_type: str | None, text: str) -> None:
    assert texts(Blob(content=content, content_type=content_type)) == [text]


def test_a_text_that_was_sent_is_never_taken_for_a_file() -> None:
    assert texts(Blob.of("%PDF-1.7 is how they begin")) == ["%PDF-1.7 is how they begin"]


def encrypted_zip() -> bytes:
    """Its parts say that they are encrypted: bit 1 of the flags, in both headers."""
    content = bytearray(manual())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := content.find(mark, start)) >= 0:
            content[start + place] |= 1
            start += 4
    return bytes(content)


def inflated(size: int) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", b"<Types/>")
        archive.writestr("word/document.xml", b" " * size)
    return written.getvalue()


LAUGHS = (
    b'<!DOCTYPE l [<!ENTITY a "lol">'
    + b"".join(b'<!ENTITY %c "%b">' % (n, b"&%c;" % (n - 1) * 10) for n in range(ord("b"), ord("l")))
    + b"]><w:document xmlns:w='http://schemas.openxmlformats.org/wordprocessingml/2006/main'><w:body><w:p><w:r><w:t>&k;"
    b"</w:t></w:r></w:p></w:body></w:document>"
)


def with_document_xml(xml: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(manual())) as old, zipfile.ZipFile(written, "w") as new:
        for name in old.namelist():
            new.writestr(name, xml if name == "word/document.xml" else old.read(name))
    return written.getvalue()


@pytest.mark.parametrize(
    ("blob", "code"),
    [
        (Blob(content=b""), "no_text"),
        (Blob.of(" \n\t "), "no_text"),
        (Blob(content=pdf("")), "no_text"),
        (Blob(content=pdf("secret", password="user")), "encrypted_file"),
        (Blob(content=b"%PDF-1.7 and nothing"), "unreadable_file"),
        (Blob(content=pdf("cut off")[:300]), "unreadable_file"),
        (Blob(content=b"text", content_type="application/pdf"), "wrong_content"),
        (Blob(content=b"text", name="a.docx"), "wrong_content"),
        (Blob(content=b"\x89PNG\r\n\x1a\n"), "unsupported_content"),
        (Blob(content=b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "unsupported_content"),
        (Blob(content=inflated(10).replace(b"word", b"nord")), "unsupported_content"),
        (Blob(content=manual()[:-50]), "unreadable_file"),
        (Blob(content=inflated(10)), "unreadable_file"),
        (Blob(content=with_document_xml(b"<w:document")), "unreadable_file"),
        (Blob(content=with_document_xml(LAUGHS)), "unreadable_file"),
        (Blob(content=encrypted_zip()), "encrypted_file"),
        (Blob(content=b"a\0b"), "not_text"),
        (Blob.of("a\0b"), "not_text"),
        (Blob(content="naïve".encode("utf-16-le")), "not_text"),
        (Blob(content=b"\xff\xfe\x00"), "unknown_encoding"),
        (Blob(content=bytes(range(1, 256)) * 20), "unknown_encoding"),
    ],
)
def test_what_cannot_be_read_says_why(blob: Blob, code: str) -> None:
    assert failure(blob) == code


def test_limits() -> None:
    assert failure(Blob.of("long " * 1_000), extract_max_bytes=1_024) == "blob_too_large"
    assert failure(Blob.of("long " * 1_000), extract_max_chars=100) == "content_too_long"
    assert failure(Blob(content=pdf("a", "b", "c")), extract_max_pages=2) == "too_many_pages"
    assert failure(Blob(content=pdf("abcdefgh")), extract_max_chars=7) == "content_too_long"
    assert failure(Blob(content=inflated(50_000_000)), extract_max_inflated_bytes=10**7) == "inflates_too_far"
    by_word = extractor("text_extractor", split_by="words", chunk_size=1)
    with pytest.raises(ExtractionFailed) as failed:
        items(by_word, Blob.of("one two three"), extract_max_documents=2)
    assert failed.value.error_code == "too_many_extracted"
    [large] = items(extractor("text_extractor"), Blob.of("x" * 2_000), max_document_bytes=1_024)
    assert isinstance(large, Rejected)
    assert large.code == "document_too_large"


def test_a_pdf_may_claim_any_number_of_pages() -> None:
    kids = " ".join(["3 0 R"] * 3)
    bodies = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count 2000000000>>"]
    bodies += ["<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>", stream("", b"")]
    assert failure(Blob(content=assembled(bodies))) in ("too_many_pages", "no_text", "unreadable_file")
    round_and_round = [bodies[0], "<</Type/Pages/Kids[2 0 R 2 0 R]/Count 4>>"]
    assert failure(Blob(content=assembled(round_and_round))) in ("no_text", "unreadable_file")


def test_every_problem_of_the_parameters_is_told() -> None:
    wrong = {"chunk_size": 0, "split_by": "time_segments", "llm_model": "x", "source_type": "youtube", "sise": 1}
    assert problems_of("text_extractor", wrong) == [
        "not_offered@parameters.source_type",
        "not_offered@parameters.llm_model",
        "bad_parameter@parameters.chunk_size",
        "bad_parameter@parameters.split_by",
        "bad_parameter@parameters.sise",
    ]
    overlapping = {"split_by": "words", "chunk_size": 5, "chunk_overlap": 5}
    assert problems_of("text_extractor", overlapping) == ["out_of_range@parameters.chunk_overlap"]
    assert problems_of("text_extractor", [], "v1") == ["bad_parameter@parameters"]
    assert problems_of("text_extractor", {}, "v2") == ["unknown_extractor@feature_extractor_name"]


def test_the_repositorys_own_pages() -> None:
    page = Path(__file__).parents[2] / "docs" / "decisions.md"
    found = documents(
        extractor("text_extractor", split_by="markdown", chunk_size=120),
        Blob(content=page.read_bytes(), name=page.name),
    )
    assert len(found) > 30
    assert {d.payload["heading_path"][0] for d in found} == {"Decisions"}
