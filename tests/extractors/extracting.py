"""What tests of extractors say again and again; and real files, made by the libraries that make such files."""

import io
from typing import Any

import docx
from fpdf import FPDF

from app.errors import Problems
from app.extractors import read
from app.extractors.base import Blob, Extracted, Extractor, Item, Limits, Source
from app.extractors.running import run
from app.settings import Settings


def limits(**settings: Any) -> Limits:
    return Limits.of(Settings(**settings))


def extractor(name: str, **parameters: Any) -> Extractor:
    problems = Problems()
    found = read(name, "v1", parameters, problems)
    assert found is not None, problems.found
    return found


def problems_of(name: str, parameters: Any, version: str = "v1") -> list[str]:
    """The problems of parameters, as `code@place`."""
    problems = Problems()
    assert read(name, version, parameters, problems) is None
    return [f"{found.code}@{'.'.join(map(str, found.location[2:]))}" for found in problems.found]


def items(made: Extractor, blob: Blob | None, fields: dict[str, Any] | None = None, **settings: Any) -> list[Item]:
    inputs = {name: (blob,) for name in made.inputs if blob is not None}
    return list(run(made, Source(inputs=inputs, fields=fields or {}), limits(**settings)))


def documents(
    made: Extractor, blob: Blob | None, fields: dict[str, Any] | None = None, **settings: Any
) -> list[Extracted]:
    found = items(made, blob, fields, **settings)
    assert all(isinstance(item, Extracted) for item in found), found
    return [item for item in found if isinstance(item, Extracted)]


def texts(blob: Blob, **parameters: Any) -> list[str]:
    return [document.payload["text"] for document in documents(extractor("text_extractor", **parameters), blob)]


def pdf(*pages: str, password: str | None = None) -> bytes:
    made = FPDF()
    made.set_font("helvetica", size=12)
    if password:
        made.set_encryption(owner_password="owner", user_password=password)
    for page in pages:
        made.add_page()
        if page:
            made.multi_cell(0, 6, page)
    return bytes(made.output())


def word(document: Any) -> bytes:
    written = io.BytesIO()
    document.save(written)
    return written.getvalue()


def manual() -> bytes:
    """A DOCX with headings, a table whose first cells are one, and a page break."""
    made = docx.Document()
    made.add_heading("Amplifier", 0)
    made.add_paragraph("Read this first.")
    made.add_heading("Care", 1)
    made.add_paragraph("Keep it dry.")
    made.add_page_break()  # type: ignore[no-untyped-call]
    made.add_heading("Fuses", 2)
    table = made.add_table(2, 2)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "Ratings"
    table.cell(1, 0).text, table.cell(1, 1).text = "main", "2 A"
    return word(made)


def laughing_pdf(depth: int = 12, fan: int = 10) -> bytes:
    """A PDF of 3 kB whose page shows a form that shows ten forms, each of which shows ten …"""
    fonts = "/Resources<</Font<</H<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>"
    bodies = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Resources<</XObject<</F 5 0 R>>>>/Contents 4 0 R>>",
        stream("", b"/F Do"),
    ]
    for n in range(6, 5 + depth):
        inner = f"/Type/XObject/Subtype/Form/BBox[0 0 99 99]/Resources<</XObject<</F {n} 0 R>>>>"
        bodies.append(stream(inner, b"/F Do " * fan))
    bodies.append(stream(f"/Type/XObject/Subtype/Form/BBox[0 0 99 99]{fonts}", b"BT /H 12 Tf (lol) Tj ET"))
    return assembled(bodies)


def stream(entries: str, content: bytes) -> str:
    return f"<<{entries}/Length {len(content)}>>\nstream\n{content.decode('latin-1')}\nendstream"


def assembled(bodies: list[str]) -> bytes:
    """Objects 1, 2, … as a PDF without a table of places, which readers then make."""
    objects = "".join(f"{n} 0 obj\n{body}\nendobj\n" for n, body in enumerate(bodies, 1))
    return f"%PDF-1.7\n{objects}trailer<</Size {len(bodies) + 1}/Root 1 0 R>>\n%%EOF".encode("latin-1")
