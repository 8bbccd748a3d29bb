"""An invoice or a credit note as an A4 page in any of 23 languages: PDF/A-3 with its document inside.

Here is decided what the page says; `paper/paper.typ` says where it stands, and Typst sets it (decision 0035). The same
document in the same language is the same file, byte for byte, as long as Typst and the fonts are the same.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import segno
import typst
from babel.dates import format_skeleton
from babel.numbers import format_currency

from haat.invoices.model import canonical, content_hash
from haat.invoices.paper import fonts
from haat.invoices.paper.labels import Labels, labels_for
from haat.invoices.paper.words import amount_in_words
from haat.kernel.text import tidy
from haat.language import ENGLISH, base_direction, format_date, format_number, graphemes, parse_tag, script_counts
from haat.language.formats import date_locale, number_locale

STANDARD: Final = "a-3b"
"""PDF/A-3: made to be kept, with the data it was made from (ISO 19005-3)."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DIRECTING = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_LANGUAGES = {"pa": "pan"}
"""Typst takes `pa` for what is written from right to left in Pakistan, and tells readers of the file so."""

_ZERO_WIDTH_SPACE = "\N{ZERO WIDTH SPACE}"
_PIECE = 10
_JOINED = re.compile(r"(?<=[-/])")
"""Where a line may end anyway."""
_COLUMNS = ("description", "calls", "quantity", "free", "price", "taxable")

_of_thread = threading.local()


def render(
    document: Mapping[str, Any], language: str, *, folder: Path = fonts.FOLDER, links: Sequence[str] = ()
) -> bytes:
    """Return an issued document (see `haat.invoices.model.document`) as a PDF with labels in a language.

    ``language`` is a tag such as ``ta`` or ``sd-Deva``; where labels are missing in it, those of its neighbour in
    `fallback_chain` stand. ``folder`` has the Noto fonts. ``links`` has the address of each line's calls, which its
    number of calls opens; without them nothing opens. What the parties and services are called stays as issued.
    Raise ValueError for an unknown language, FontMissing where a font is not installed.
    """
    labels = labels_for(parse_tag(language))
    faces = fonts.faces_in(folder)
    data = json.dumps(_Page(document, labels, faces, links).data(), ensure_ascii=False, sort_keys=True)
    compiled = _compiler(folder).compile(
        _layout(), sys_inputs={"data": data}, pdf_standards=[STANDARD], timestamp=_issued(document)
    )
    assert isinstance(compiled, bytes)
    return compiled


def _compiler(folder: Path) -> typst.Compiler:
    """Return this thread's typesetter, which knows these fonts and nothing else of the machine.

    One works for one thread at a time; the fonts are shared by all.
    """
    known: dict[Path, typst.Compiler] = _of_thread.__dict__.setdefault("compilers", {})
    if folder not in known:
        known[folder] = typst.Compiler(font_paths=fonts.faces_in(folder).fonts, ignore_system_fonts=True)
    return known[folder]


@lru_cache(maxsize=1)
def _layout() -> bytes:
    return resources.files(__package__).joinpath("paper", "paper.typ").read_bytes()


class _Page:
    """What a page says, piece by piece."""

    def __init__(self, document: Mapping[str, Any], labels: Labels, faces: fonts.Faces, links: Sequence[str]) -> None:
        self._document, self._labels, self._faces, self._links = document, labels, faces, links
        self._tag = labels.tag

    def data(self) -> dict[str, Any]:
        """Return everything that `paper.typ` places, as plain data."""
        document, labels = self._document, self._labels
        text = canonical(document)
        digest = content_hash(text).hex()
        kind = kind_of(document)
        heading = labels[kind]
        serial = self._own(document["serial"])
        families = self._faces.families_for(self._tag)
        return {
            "title": f"{heading} {serial['text']}",
            "heading": heading,
            "original": "" if kind == "statement" else labels["original"],
            "lang": _LANGUAGES.get(self._tag.language, self._tag.language),
            "dir": self._tag.direction,
            "fonts": families,
            "supplier": self._party(document["supplier"], labels["supplier"]),
            "recipient": self._party(document["recipient"], labels["recipient"]),
            "facts": self._facts(),
            "columns": [("number", ""), *((name, labels[name]) for name in _COLUMNS)],
            "rows": [self._row(position, line) for position, line in enumerate(document["lines"], 1)],
            "sums": self._sums(),
            "total": {"name": labels["total"], "amount": self._money(document["total"])},
            "words": {"caption": labels["words"], "text": amount_in_words(Decimal(document["total"]), labels)},
            "irn": self._plain(document["irn"]) if document.get("irn") else None,
            "qr": _qr(str(document["irn_qr"])) if document.get("irn_qr") else None,
            "hash": {
                "caption": labels["hash"],
                "value": digest,
                "verify": labels["verify"],
                "command": f"sha256sum {_file_name(document)}",
            },
            "unsigned": "" if kind == "statement" else labels["unsigned"],
            "page": labels["page"],
            "footer": self._own(f"{document['supplier']['name']} · {document['serial']}"),
            "attachment": {"name": _file_name(document), "text": text},
        }

    def _party(self, party: Mapping[str, Any], caption: str) -> dict[str, Any]:
        state = party.get("state")
        lines = [
            party.get("address") or "",
            f"{state} ({party.get('state_code')})" if state else "",
            f"GSTIN {party['gstin']}" if party.get("gstin") else self._labels["unregistered"],
        ]
        return {
            "caption": caption,
            "name": self._own(party["name"]),
            "lines": [self._own(line) for line in lines if line],
        }

    def _facts(self) -> list[tuple[str, list[dict[str, Any]]]]:
        document, labels = self._document, self._labels
        place = document["place_of_supply"]
        facts = [("number", [document["serial"]]), ("date", [self._day(document["date"])])]
        if document.get("due_on"):
            facts.append(("due", [self._day(document["due_on"])]))
        if document.get("period"):
            facts.append(("period", [self._month(document["period"], document.get("part") or 1)]))
        for one in document.get("against") or ():
            facts.append(("against", [one["serial"], self._day(one["date"])]))
        if document.get("reason"):
            facts.append(("reason", [document["reason"]]))
        facts.append(("place", [f"{place['state']} ({place['state_code']})"]))
        facts.append(("reverse_charge", [labels["yes" if document.get("reverse_charge") else "no"]]))
        return [(labels[name], [self._own(line) for line in said]) for name, said in facts]

    def _row(self, position: int, line: Mapping[str, Any]) -> dict[str, Any]:
        labels = self._labels
        detail = [f"SAC {line['sac']}"] if line.get("sac") else []
        if line.get("period"):
            detail.append(self._month(line["period"], 1))
        if line.get("plan"):
            detail.append(str(line["plan"]))
        if line.get("invoice"):  # a note's line corrects a line of an invoice, and counts nothing by itself
            detail.append(f"{line['invoice']} ({line['position']})")
            line = {**line, "calls": None, "quantity": None, "unit": "", "free_units": None, "unit_price": None}
        detail += [self._step(step) for step in line.get("steps") or ()]
        share = line.get("cached_share")
        return {
            "number": str(position),
            "description": self._own(line["description"]),
            "detail": [self._own(one) for one in detail],
            "calls": self._count(line.get("calls")),
            "link": self._links[position - 1] if self._links else None,
            "quantity": self._count(line.get("quantity")),
            "unit": labels.unit(str(line["unit"])) if line.get("unit") else "",
            "free": self._count(line.get("free_units")),
            "price": self._price(line.get("unit_price")),
            "share": None if share is None else labels["share"].format(share=_percent(share)),
            "taxable": self._money(line["taxable_value"]),
        }

    def _step(self, step: Mapping[str, Any]) -> str:
        """Return one term of a price in tiers or packages, as the document names it."""
        count, price = self._count(step["quantity"]), self._price(step["price"])
        return f"{step['label']}: {count} × {price} = {self._price(step['amount'])}"

    def _sums(self) -> list[tuple[dict[str, Any], str]]:
        document = self._document
        sums = [(self._labels["taxable"], document["taxable_value"])]
        sums += [(f"{tax['name']} {_percent(tax['rate'])}", tax["amount"]) for tax in document["taxes"]]
        return [(self._own(name), self._money(amount)) for name, amount in sums]

    # --- how things are written -------------------------------------------------------------------

    def _own(self, text: object) -> dict[str, Any]:
        """Return a text with the direction of its first strong letter, or else of the page's.

        One without a letter of the page's script is ``foreign``: even its spaces come from another font.
        """
        plain = self._plain(text)
        foreign = self._tag.script not in script_counts(plain)
        return {
            "text": " ".join(map(_breakable, plain.split(" "))),
            "dir": base_direction(plain) or self._tag.direction,
            "foreign": foreign,
        }

    def _plain(self, text: object) -> str:
        """Return a text in one line that shows all it holds: no controls, no overrides, no letter without a font."""
        line = tidy(_DIRECTING.sub("", _UNPRINTABLE.sub(" ", str(text))))
        if line.isascii():
            return line
        return "".join(one if self._faces.show(one) else _REPLACEMENT for one in graphemes(line))

    def _count(self, value: object) -> str:
        """Return a quantity with every decimal that counts."""
        if value is None:
            return ""
        number = Decimal(str(value))
        whole, _, decimals = f"{number:f}".partition(".")
        written = format_number(Decimal(whole), ENGLISH)
        if written == "0" and whole.startswith("-"):
            written = "-0"
        decimals = decimals.rstrip("0")
        return f"{written}.{decimals}" if decimals else written

    def _price(self, value: object) -> str:
        """Return a price with every decimal that counts, two at least: it is never rounded."""
        if value is None:
            return ""
        price = Decimal(str(value))
        decimals = max(2, -int(price.normalize().as_tuple().exponent)) if price else 2
        return self._rupees(price, decimals)

    def _money(self, value: object) -> str:
        return self._rupees(Decimal(str(value)), 2)

    def _rupees(self, amount: Decimal, decimals: int) -> str:
        pattern = f"¤#,##,##0.{'0' * decimals}"
        return format_currency(amount, "INR", pattern, number_locale(ENGLISH), currency_digits=False)

    def _day(self, text: str) -> str:
        return format_date(date.fromisoformat(text), self._tag, "long")

    def _month(self, period: str, part: int) -> str:
        """Return a period such as ``2026-11`` by its name; only months are known by name."""
        found = re.fullmatch(r"(\d{4})-(\d{2})", str(period))
        if found is None:
            return str(period)
        first = date(int(found[1]), int(found[2]), 1)
        named = format_skeleton("yMMMM", first, locale=date_locale(self._tag))
        return named if part <= 1 else f"{named}, {self._labels['part'].format(part=part)}"


def _issued(document: Mapping[str, Any]) -> datetime:
    """Return when the document was issued, to the second: the only date in the file, whenever it is made."""
    issued = document.get("issued_at") or f"{document['date']}T00:00:00+05:30"
    return datetime.fromisoformat(str(issued)).astimezone(UTC).replace(microsecond=0)


def kind_of(document: Mapping[str, Any]) -> str:
    """Return what a document is, by the name of its heading: an invoice, unless it says something else we know."""
    kind = str(document.get("kind", "invoice"))
    return kind if kind in ("credit_note", "debit_note", "statement") else "invoice"


def _file_name(document: Mapping[str, Any]) -> str:
    """Return what the attached document is called: its serial without the slashes."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", str(document["serial"])) + ".json"


def _percent(share: object) -> str:
    number = Decimal(str(share)) * 100
    written = f"{number:f}"
    return (written.rstrip("0").rstrip(".") if "." in written else written) + "%"


def _breakable(word: str) -> str:
    """Return a word that may be broken every ten graphemes where more than twenty have no hyphen or slash."""
    pieces = [graphemes(piece) for piece in _JOINED.split(word)]
    return "".join(
        _ZERO_WIDTH_SPACE.join("".join(piece[n : n + _PIECE]) for n in range(0, len(piece), _PIECE))
        if len(piece) > 2 * _PIECE
        else "".join(piece)
        for piece in pieces
    )


def _qr(content: str) -> str:
    """Return a QR code as SVG. The signed code of an e-invoice is long: level L keeps its modules large."""
    code = segno.make(content, error="l", micro=False, boost_error=False)
    drawn = io.BytesIO()
    code.save(drawn, kind="svg", border=4, omitsize=True, xmldecl=False, svgclass=None, lineclass=None)
    return drawn.getvalue().decode()
