"""Documents to print, and what stands in the files that are made of them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pypdf
import pypdfium2
import uharfbuzz
from pypdf.generic import ContentStream

from haat.invoices.paper.fonts import FOLDER
from haat.kernel.money import to_paisa, total

Outline = tuple[tuple[Any, ...], ...]
UNITS = ("characters", "tokens", "requests", "audio_seconds")
PRICES = ("0.0002", "0.00005", "0.25", "0.000000000003")


def a_document(lines: int = 2, **changes: Any) -> dict[str, Any]:
    """Return an invoice within one State, as `haat.invoices.model.document` writes it."""
    rows = [
        {
            "identity": f"line-{n}",
            "description": "Hindi and Urdu translation",
            "sac": "998439",
            "period": "2026-11",
            "from": "2026-10-31T18:30:00+00:00",
            "to": "2026-11-30T18:30:00+00:00",
            "plan": "professional",
            "calls": 12_34_567 + n,
            "unit": UNITS[n % 4],
            "quantity": "9876543.5",
            "free_units": "10000",
            "billable": "9866543.5",
            "unit_price": PRICES[n % 4],
            "rate_card_version": 1,
            "taxable_value": f"{12345.67 + n:.2f}",
        }
        for n in range(lines)
    ]
    net = total(Decimal(str(row["taxable_value"])) for row in rows)
    tax = to_paisa(net * Decimal("0.09"))
    document = {
        "id": "01999999-0000-7000-8000-000000000001",
        "serial": "HT/2627/000042",
        "period": "2026-11",
        "part": 1,
        "date": "2026-12-01",
        "issued_at": "2026-12-01T00:30:00.123456+00:00",
        "currency": "INR",
        "supplier": {
            "name": "Haat Operator",
            "address": "1 Market Street, New Delhi 110001",
            "gstin": "07AAACH0000H1ZF",
            "state_code": "07",
            "state": "Delhi",
        },
        "recipient": {
            "id": "01999999-0000-7000-8000-000000000002",
            "name": "Sabzi Mandi Software",
            "address": "14 Bazaar Road, Delhi 110006",
            "gstin": None,
        },
        "place_of_supply": {"state_code": "07", "state": "Delhi"},
        "reverse_charge": False,
        "lines": rows,
        "taxable_value": str(net),
        "taxes": [{"name": name, "rate": "0.09", "amount": str(tax)} for name in ("CGST", "SGST")],
        "tax": str(2 * tax),
        "total": str(net + 2 * tax),
        "irn": None,
        "irn_qr": None,
    }
    return document | changes


def a_credit_note(**changes: Any) -> dict[str, Any]:
    """Return a note about one line of an invoice, as `haat.invoices.credits` writes it."""
    line = {"invoice": "HT/2627/000042", "position": 3, "description": "Speech", "sac": "998439", "period": "2026-11"}
    counts = {"calls": 0, "unit": "tokens", "quantity": "0", "free_units": "0", "unit_price": "0.25"}
    note = a_document(
        1,
        kind="credit_note",
        serial="HTC/2627/000007",
        against=[{"id": "one", "serial": "HT/2627/000042", "date": "2026-12-01"}],
        reason="Availability of 98.2 % instead of 99.5 %",
    )
    note["lines"] = [{**line, **counts, "taxable_value": "12345.67"}]
    del note["period"], note["part"]
    return note | changes


def text_of(file: bytes) -> str:
    """Return what the file says that its glyphs mean, without spaces: some lines end in one and some don't.

    Within a run from right to left glyphs, and so their letters, stand in the order in which they are drawn.
    """
    reader = pypdf.PdfReader(io.BytesIO(file))
    said = []
    for page in reader.pages:
        one: Any = page
        meanings = {name: _meanings(font) for name, font in one["/Resources"]["/Font"].items()}
        current: dict[int, str] = {}
        spans: list[bool] = []  # of marked content: whether it says itself what it means
        for operands, operator in ContentStream(page.get_contents(), reader).operations:
            if operator == b"Tf":
                current = meanings[operands[0]]
            elif operator in (b"BDC", b"BMC"):
                properties = operands[1] if len(operands) > 1 else {}
                spans.append("/ActualText" in properties)
                if spans[-1]:
                    said.append(str(properties["/ActualText"]))
            elif operator == b"EMC":
                spans.pop()
            elif operator in (b"Tj", b"TJ") and not any(spans):
                for piece in operands[0] if operator == b"TJ" else operands:
                    said += [current[code] for code in _codes(piece)]
    return "".join("".join(said).split())


def says(file: bytes, *texts: str) -> bool:
    """Tell whether a file says each of some texts, spaces apart."""
    written = text_of(file)
    return all("".join(text.split()) in written for text in texts)


def _meanings(font: Any) -> dict[int, str]:
    """Return the letters of a font's glyphs, from its ToUnicode map."""
    table = font["/ToUnicode"].get_data().decode("ascii")
    pairs = re.findall(
        r"<([0-9a-fA-F]{4})> <([0-9a-fA-F]+)>", "".join(re.findall(r"beginbfchar(.*?)endbfchar", table, re.S))
    )
    meanings = {int(code, 16): bytes.fromhex(letters).decode("utf-16-be") for code, letters in pairs}
    for block in re.findall(r"beginbfrange(.*?)endbfrange", table, re.S):
        for first, last, letters in re.findall(r"<([0-9a-fA-F]+)> <([0-9a-fA-F]+)> <([0-9a-fA-F]+)>", block):
            start = bytes.fromhex(letters).decode("utf-16-be")
            for step in range(int(last, 16) - int(first, 16) + 1):
                meanings[int(first, 16) + step] = start[:-1] + chr(ord(start[-1]) + step)
    return meanings


def pages_of(file: bytes) -> int:
    return len(pypdfium2.PdfDocument(file))


def places_of(file: bytes, text: str, page: int = 0) -> list[float]:
    """Return the left edge of each place where a text stands on a page, as a share of the page's width."""
    one = pypdfium2.PdfDocument(file)[page]
    written = one.get_textpage()
    search, places = written.search(text), []
    while (found := search.get_next()) is not None:
        places.append(written.get_charbox(found[0])[0] / one.get_width())
    return places


def attached_to(file: bytes) -> dict[str, bytes]:
    attachments = pypdf.PdfReader(io.BytesIO(file)).attachments
    return {name: attachments[name][0] for name in attachments}


def links_of(file: bytes) -> list[str]:
    """Return the addresses that a file's pages open, in order."""
    pages = pypdf.PdfReader(io.BytesIO(file)).pages
    notes = [note.get_object() for page in pages for note in page.get("/Annots", [])]
    return [str(note["/A"]["/URI"]) for note in notes if note["/Subtype"] == "/Link"]


def drawn_glyphs(file: bytes) -> list[Outline]:
    """Return the outlines of all glyphs of the first page, in the order in which it draws them."""
    reader = pypdf.PdfReader(io.BytesIO(file))
    page: Any = reader.pages[0]
    fonts = {name: _embedded(font) for name, font in page["/Resources"]["/Font"].items()}
    outlines, current = [], next(iter(fonts.values()))
    for operands, operator in ContentStream(page.get_contents(), reader).operations:
        if operator == b"Tf":
            current = fonts[operands[0]]
        elif operator in (b"Tj", b"TJ"):
            shown = operands[0] if operator == b"TJ" else [operands[0]]
            for piece in shown:
                outlines += [outline_of(current, glyph) for glyph in _codes(piece)]
    return outlines


def shaped_glyphs(text: str, script: str, language: str, family: str, direction: str = "ltr") -> list[Outline]:
    """Return the outlines of the glyphs that HarfBuzz makes of a text, in the order in which they are drawn."""
    font = uharfbuzz.Font(uharfbuzz.Face(uharfbuzz.Blob.from_file_path(FOLDER / f"{family}.ttf")))
    buffer = uharfbuzz.Buffer()
    buffer.add_str(text)
    buffer.direction, buffer.script, buffer.language = direction, script, language
    uharfbuzz.shape(font, buffer)
    glyphs = [outline_of(font, info.codepoint) for info in buffer.glyph_infos]
    assert len(glyphs) == len(buffer.glyph_infos)
    return glyphs


def outline_of(font: uharfbuzz.Font, glyph: int) -> Outline:
    pen = _Pen()
    font.draw_glyph_with_pen(glyph, pen)
    return tuple(pen.strokes)


def is_within(part: list[Outline], whole: list[Outline]) -> bool:
    return any(whole[n : n + len(part)] == part for n in range(len(whole) - len(part) + 1))


class _Pen:
    """Writes down how a glyph is drawn."""

    def __init__(self) -> None:
        self.strokes: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *points: self.strokes.append((name, *points))


def _embedded(font: Any) -> uharfbuzz.Font:
    descendant = font["/DescendantFonts"][0]
    assert descendant["/CIDToGIDMap"] == "/Identity"
    return uharfbuzz.Font(uharfbuzz.Face(descendant["/FontDescriptor"]["/FontFile2"].get_data()))


def _codes(piece: Any) -> Iterator[int]:
    """Yield the glyphs of a string of two-byte codes; the numbers between strings only move them."""
    if isinstance(piece, bytes | str):
        raw = piece if isinstance(piece, bytes) else piece.original_bytes  # type: ignore[attr-defined]  # pypdf's own
        yield from (int.from_bytes(raw[n : n + 2]) for n in range(0, len(raw), 2))


def font_folder(at: Path, without: str) -> Path:
    """Return a folder with links to the fonts, but for a family."""
    at.mkdir()
    for file in FOLDER.glob("Noto*-*.ttf"):
        if not file.name.startswith(f"{without}-"):
            (at / file.name).symlink_to(file)
    return at
