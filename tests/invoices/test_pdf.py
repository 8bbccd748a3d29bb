"""Invoices on paper: what they say in 23 languages, how it is shaped, and what nobody can do to them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haat.invoices.model import canonical
from haat.invoices.paper.labels import labels_for
from haat.invoices.pdf import render
from haat.kernel.errors import FontMissing
from haat.language import LANGUAGES, parse_tag

from .papers import (
    a_credit_note,
    a_document,
    attached_to,
    drawn_glyphs,
    font_folder,
    is_within,
    links_of,
    pages_of,
    places_of,
    says,
    shaped_glyphs,
)

ALL = [str(parse_tag(code)) for code in LANGUAGES]
LEFT_TO_RIGHT = [tag for tag in ALL if parse_tag(tag).direction == "ltr"]
RIGHT_TO_LEFT = [tag for tag in ALL if tag not in LEFT_TO_RIGHT]
SHAPED = [  # words with conjuncts, reordered vowel signs, ligatures; the file of the font
    ("hi", "deva", "प्राप्तकर्ता", "NotoSansDevanagari-Bold", "ltr"),
    ("hi", "deva", "निःशुल्क", "NotoSansDevanagari-Bold", "ltr"),
    ("mr", "deva", "पुरवठ्याचे", "NotoSansDevanagari-Regular", "ltr"),
    ("ta", "taml", "விலைப்பட்டியல்", "NotoSansTamil-Bold", "ltr"),
    ("bn", "beng", "স্থান", "NotoSansBengali-Regular", "ltr"),
    ("as", "beng", "প্ৰাপক", "NotoSansBengali-Bold", "ltr"),
    ("pa", "guru", "ਪ੍ਰਾਪਤਕਰਤਾ", "NotoSansGurmukhi-Bold", "ltr"),
    ("gu", "gujr", "ક્રમાંક", "NotoSansGujarati-Regular", "ltr"),
    ("or", "orya", "ପ୍ରାପ୍ତକର୍ତ୍ତା", "NotoSansOriya-Bold", "ltr"),
    ("te", "telu", "సరఫరాదారు", "NotoSansTelugu-Bold", "ltr"),
    ("kn", "knda", "ಸ್ವೀಕರಿಸುವವರು", "NotoSansKannada-Bold", "ltr"),
    ("ml", "mlym", "സ്വീകർത്താവ്", "NotoSansMalayalam-Bold", "ltr"),
    ("mni", "mtei", "ꯏꯅꯚꯣꯏꯁ", "NotoSansMeeteiMayek-Bold", "ltr"),
    ("sat", "olck", "ᱤᱱᱵᱷᱚᱭᱮᱥ", "NotoSansOlChiki-Bold", "ltr"),
    ("ur", "arab", "ٹیکس انوائس", "NotoNastaliqUrdu-Regular", "rtl"),
    ("sd", "arab", "ڪريڊٽ", "NotoNaskhArabic-Bold", "rtl"),
]


@pytest.mark.parametrize("tag", ALL)
def test_every_language_prints_and_says_the_particulars_of_rule_46(tag: str) -> None:
    page = render(a_document(), tag)
    assert page.startswith(b"%PDF-1.7") and pages_of(page) == 1
    parties = ("Haat Operator", "GSTIN 07AAACH0000H1ZF", "Sabzi Mandi Software", "14 Bazaar Road, Delhi 110006")
    assert says(page, *parties, "HT/2627/000042", "Delhi (07)", "SAC 998439")
    assert says(page, "12,34,567", "98,76,543.5", "10,000", "₹0.00005", "₹12,345.67")
    assert says(page, "CGST 9%", "SGST 9%", "₹2,222.31", "₹29,136.96")


@pytest.mark.parametrize("tag", [tag for tag in LEFT_TO_RIGHT if tag != "mni-Mtei"])
def test_what_can_be_copied_out_of_a_page_is_what_was_written(tag: str) -> None:
    # Not of Meetei Mayek and Nastaliq: there a letter and its mark are two glyphs that each mean both.
    labels = labels_for(parse_tag(tag))
    names = ("invoice", "original", "supplier", "place", "no", "taxable", "total", "hash", "verify", "unsigned")
    assert says(render(a_document(), tag), *(labels[name] for name in names), labels.unit("tokens"))


@pytest.mark.parametrize(("tag", "script", "word", "font", "direction"), SHAPED, ids=[one[2] for one in SHAPED])
def test_words_are_drawn_with_the_glyphs_that_harfbuzz_gives(
    tag: str, script: str, word: str, font: str, direction: str
) -> None:
    document = a_credit_note() if word == "ڪريڊٽ" else a_document()
    wanted = shaped_glyphs(word, script, tag, font, direction)
    assert is_within(wanted, drawn_glyphs(render(document, tag)))


def test_a_conjunct_is_not_its_letters_in_a_row() -> None:
    letters = shaped_glyphs("क\u200cत", "deva", "hi", "NotoSansDevanagari-Bold")
    assert shaped_glyphs("क्त", "deva", "hi", "NotoSansDevanagari-Bold") != letters


@pytest.mark.parametrize("tag", RIGHT_TO_LEFT)
def test_a_page_from_right_to_left_is_mirrored(tag: str) -> None:
    mirrored, plain = render(a_document(1), tag), render(a_document(1), "hi")
    assert min(places_of(plain, "Market")) < 0.2 < 0.6 < min(places_of(mirrored, "Market"))
    assert max(places_of(plain, "12,345.67")) > 0.7 and min(places_of(mirrored, "12,345.67")) < 0.2
    assert says(mirrored, "HT/2627/000042", "₹12,345.67")  # digits, slashes and signs in their order


def test_the_same_document_is_the_same_file_also_in_another_process(tmp_path: Path) -> None:
    document = a_document(3)
    (tmp_path / "document.json").write_text(json.dumps(document))
    program = (
        "import hashlib, json, sys; from haat.invoices.pdf import render;"
        f"print(hashlib.sha256(render(json.load(open('{tmp_path}/document.json')), 'ta')).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first = render(document, "ta")
    assert render(document, "hi") != first == render(document, "ta")
    assert other.stdout.strip() == hashlib.sha256(first).hexdigest()


def test_threads_print_at_the_same_time_and_the_same() -> None:
    documents = [a_document(2, serial=f"HT/2627/{number:06d}") for number in range(8)]
    alone = [render(document, "hi") for document in documents]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(render, documents, ["hi"] * 8)) == alone


def test_the_document_is_inside_byte_for_byte_under_the_hash_on_the_page() -> None:
    document = a_document()
    page = render(document, "en")
    assert attached_to(page) == {"HT-2627-000042.json": canonical(document).encode()}
    digest = hashlib.sha256(canonical(document).encode()).hexdigest()
    assert says(page, digest, "sha256sum HT-2627-000042.json")


def test_a_long_invoice_goes_over_pages_with_its_head_on_each() -> None:
    page = render(a_document(70), "bn")
    assert pages_of(page) == 4
    heads = [len(places_of(page, labels_for(parse_tag("bn"))["description"], number)) for number in range(4)]
    assert heads == [1, 1, 1, 1]
    assert says(page, "পৃষ্ঠা 1 / 4", "পৃষ্ঠা 4 / 4", "70 Hindi and Urdu")


def test_a_credit_note_names_its_invoice_and_its_reason() -> None:
    page = render(a_credit_note(), "en")
    assert says(page, "Credit note", "HTC/2627/000007", "Availability of 98.2 % instead of 99.5 %")
    assert says(page, "Against invoice HT/2627/000042 1 December 2026") and not says(page, "Tax invoice")
    assert says(page, "HT/2627/000042 (3) ₹12,345.67")  # the line that is corrected; no counts of its own


def test_a_debit_note_says_when_it_is_due() -> None:
    page = render(a_credit_note(kind="debit_note", due_on="2026-12-31"), "hi")
    assert says(page, "डेबिट नोट", "देय तिथि 31 दिसंबर 2026")


def test_a_statement_of_usage_is_no_tax_invoice() -> None:
    page = render(a_document(kind="statement"), "en")
    assert says(page, "Statement of usage") and not says(page, "Tax invoice")
    assert not says(page, "Original for recipient") and not says(page, "signature")


def test_an_e_invoice_has_its_number_and_its_code() -> None:
    irn = hashlib.sha256(b"irn").hexdigest()
    signed = "eyJhbGciOiJSUzI1NiJ9." + "x" * 900
    with_code, without = render(a_document(irn=irn, irn_qr=signed), "en"), render(a_document(), "en")
    assert says(with_code, f"IRN {irn}") and not says(without, "IRN")
    assert pages_of(with_code) == 1 and len(with_code) > len(without) + 1000


def test_a_share_of_the_price_a_part_and_reverse_charge_are_told() -> None:
    document = a_document(1, part=2, reverse_charge=True)
    document["lines"][0]["cached_share"] = "0.125"
    assert says(render(document, "en"), "12.5% of it", "November 2026, part 2", "reverse charge Yes")


def test_what_an_adjustment_takes_back_is_negative() -> None:
    document = a_document(1)
    document["lines"][0] |= {"quantity": "-0.5", "taxable_value": "-12.00", "calls": 0}
    assert says(render(document, "hi"), "-0.5", "-₹12.00")


def test_lines_without_calls_or_price_leave_their_columns_empty() -> None:
    document = a_document(1)
    document["lines"] = [{"description": "Minimum commitment", "taxable_value": "500.00"}]
    assert says(render(document, "ur"), "Minimum commitment", "₹500.00")


def test_a_price_in_tiers_says_how_its_amount_comes_together() -> None:
    document = a_document(1)
    document["lines"][0]["steps"] = [
        {"label": "tier 1", "quantity": "100", "price": "1", "amount": "100"},
        {"label": "tier 2", "quantity": "40000", "price": "0.5", "amount": "20000"},
    ]
    assert says(render(document, "en"), "tier 1: 100 × ₹1.00 = ₹100.00", "tier 2: 40,000 × ₹0.50 = ₹20,000.00")


def test_the_number_of_calls_of_each_line_opens_their_list_and_nothing_else_opens() -> None:
    links = [f"https://market.example/lines/{number}" for number in range(40)]
    assert links_of(render(a_document(40), "ur", links=links)) == links
    assert links_of(render(a_document(40), "ur")) == []


HOSTILE = [
    "x" * 400,
    "क" * 250,
    "\u202etxet \u2066 \u2069\u2069 desrever",
    '<b>bold</b> & #text(red)[x] $x$ *b* _i_ @ref \\ // /* */ `raw` #read("/etc/passwd")',
    "👩‍🌾 किसान 🧑‍💻",
    "中文公司",
    "a\u0903\u0947b \u0947\u094d \u25cc\u0941",
    "A" + "\u0301" * 200,
    "\x00\x01\x1b[31m\r\n\t\u2028\u2029\x85",
    "\u200d\u200c\u200b\ufeff",
    "\ue000\uf8ff\ufffe\U0010ffff",
    "",
]


@pytest.mark.parametrize("tag", ["en", "hi", "ur", "mni"])
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_breaks_a_page_or_hides_an_amount(name: str, tag: str) -> None:
    document = a_document(1)
    document["recipient"] |= {"name": name, "address": name}
    document["lines"][0] |= {"description": name, "plan": name}
    page = render(document, tag)
    assert says(page, "₹14,567.89")
    assert attached_to(page)["HT-2627-000042.json"] == canonical(document).encode()


def test_markup_in_a_name_is_letters() -> None:
    document = a_document(1)
    document["recipient"]["name"] = '<b>bold</b> #read("/etc/passwd")'
    assert says(render(document, "en"), '<b>bold</b> #read("/etc/passwd")')


def test_an_override_turns_nothing_round() -> None:
    document = a_document(1)
    document["recipient"]["name"] = "Pay \u202e000,1₹\u202c now"
    assert says(render(document, "en"), "Pay 000,1₹ now")


def test_a_letter_without_a_font_is_shown_as_missing() -> None:
    document = a_document(1)
    document["recipient"]["name"] = "Firm 中"
    assert says(render(document, "en"), "Firm \N{REPLACEMENT CHARACTER}")


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=80), st.sampled_from(["en", "ta", "ur"]))
def test_any_text_can_be_a_name(name: str, tag: str) -> None:
    document = a_document(1)
    document["recipient"]["name"] = name.encode("utf-8", "replace").decode()
    assert pages_of(render(document, tag)) == 1


def test_a_missing_font_is_named_with_what_to_install(tmp_path: Path) -> None:
    folder = font_folder(tmp_path / "fonts", without="NotoSansTamil")
    with pytest.raises(FontMissing, match=r"Noto Sans Tamil \(for Tamil\).*make fonts.*fonts_dir"):
        render(a_document(), "ta", folder=folder)


def test_a_folder_without_fonts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FontMissing):
        render(a_document(), "en", folder=tmp_path)


def test_a_language_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of the 23"):
        render(a_document(), "xx")


@pytest.mark.parametrize(
    ("asked", "given"), [("ks-Deva", "hi"), ("sd-Deva", "hi"), ("mni-Beng", "en"), ("ta-Latn", "en")]
)
def test_a_language_without_labels_is_printed_in_its_neighbours(asked: str, given: str) -> None:
    assert render(a_document(), asked) == render(a_document(), given)


def test_nothing_of_the_document_is_changed_by_printing_it() -> None:
    document: dict[str, Any] = a_credit_note()
    before = canonical(document)
    render(document, "sat")
    assert canonical(document) == before
