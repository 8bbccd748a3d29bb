"""The catalogs of the interface: current, honest in their heads, whole where promised, and never broken."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from babel import Locale
from babel.messages import Catalog
from babel.messages.catalog import Message

from haat.language import ENGLISH, LANGUAGES, parse_tag
from haat.language import messages as words
from haat.language.messages import INTERFACE, catalog_of, is_translated

ROOT = Path(__file__).parents[2]
TAGS = [tag for tag in INTERFACE if tag != ENGLISH]
WHOLE = ["hi"]
"""Languages in which every text is there."""
FOR_VISITORS = ["ur", "ta", "bn", "te", "mr"]
"""Languages in which every text is there that visitors and developers see."""
OF_PROVIDERS_AND_OPERATORS = frozenset(
    """
    audit.html audit_event.html call_answer.html call_lookup.html content.html content_edit.html content_page.html
    content_reports.html dead_letters.html dispute_decide.html dispute_desk.html flag.html flags.html gateways.html
    invoice_run.html pages_audit.py pages_content.py pages_flags.py pages_gateways.py pages_lookup.py pages_operator.py
    pages_partner.py pages_prices.py pages_rollout.py pages_settlement.py partner.html partner_register.html
    partners.html payout.html payout_desk.html payouts.html prices.html queue.html reviews_desk.html
    reviews_received.html rollout.html service.html service_form.html service_form.py statement.html
    statement_calls.html statements.html switchboard.py version_fields.html
    catalog/model.py catalog/provider.py catalog/service.py catalog/store.py catalog/versions.py content/model.py
    content/report_store.py
    content/service.py content/store.py content/translator.py flags/draft.py flags/service.py flags/store.py
    invoices/payments.py invoices/runs.py invoices/terms.py partners/api.py partners/model.py partners/service.py
    partners/store.py rollouts/access.py rollouts/experiments.py rollouts/model.py rollouts/service.py
    rollouts/store.py settlement/balances.py settlement/bank_answers.py settlement/evidence.py
    settlement/payout_model.py settlement/payouts.py settlement/shares.py settlement/statements.py sla/closing.py
    sla/maintenance.py sla/service.py sla/store.py
    """.split()  # noqa: SIM905 - names of files read better so
)
_PLACE = re.compile(r"%\((\w+)\)[sd]")
_MARKUP = re.compile(r"</?\w+[^>]*>")
_NUMBERS = {"count", "shown", "amount"}
"""Places that a form for one may say in words."""


@cache
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("messages_tool", ROOT / "tools" / "messages.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def texts() -> Catalog:
    found: Catalog = tool().template()
    return found


def catalog(code: str) -> Catalog:
    found = catalog_of(LANGUAGES[code].tag)
    assert found is not None
    return found


@pytest.mark.parametrize("tag", TAGS, ids=str)
def test_a_catalog_has_exactly_the_texts_of_the_code(tag: words.Tag) -> None:
    assert {key_of(one) for one in catalog(tag.language)} == {key_of(one) for one in texts()}, "run make messages"


def key_of(message: Message) -> object:
    return message.id if isinstance(message.id, str) else tuple(message.id)


@pytest.mark.parametrize("code", WHOLE)
def test_a_whole_language_lacks_nothing(code: str) -> None:
    assert [one.id for one in catalog(code) if one.id and (not is_translated(one.string) or one.fuzzy)] == []


@pytest.mark.parametrize("code", FOR_VISITORS)
def test_visitors_and_developers_find_every_text(code: str) -> None:
    missing = [
        one.id
        for one in catalog(code)
        if one.id
        and (not is_translated(one.string) or one.fuzzy)
        and not all({file, Path(file).name} & OF_PROVIDERS_AND_OPERATORS for file, _ in one.locations)
    ]
    assert missing == []


@pytest.mark.parametrize("tag", TAGS, ids=str)
def test_a_translation_keeps_places_and_markup(tag: words.Tag) -> None:
    broken = []
    for one in catalog(tag.language):
        if not one.id or one.fuzzy or not is_translated(one.string):
            continue
        sources = [one.id] if isinstance(one.id, str) else list(one.id)
        forms = [one.string] if isinstance(one.string, str) else list(one.string or ())
        asked = {place for source in sources for place in _PLACE.findall(source)}
        needed = asked if len(sources) == 1 else asked - _NUMBERS
        for form in forms:
            places = set(_PLACE.findall(form))
            strays = form.replace("%%", "").count("%") - len(_PLACE.findall(form))
            markup = sorted(_MARKUP.findall(form)) == sorted(_MARKUP.findall(sources[-1]))
            quoted = '"' in form and '"' not in sources[-1]  # it would end the attribute that the text stands in
            if places - asked or needed - places or (asked and strays) or not markup or quoted:
                broken.append((one.id, form))
    assert broken == []


@pytest.mark.parametrize("tag", TAGS, ids=str)
def test_a_catalog_says_who_wrote_it_and_has_cldrs_plurals(tag: words.Tag) -> None:
    text = tool().file_of(tag).read_text(encoding="utf-8")
    assert re.search(r"^# Written by: \S", text, re.MULTILINE)
    assert re.search(r"^# Reviewed by a speaker: (yes|no|in part)\b", text, re.MULTILINE)
    expected = {Locale.parse(tag.language).plural_form(number) for number in range(200)}
    assert catalog(tag.language).num_plurals >= len(expected)


def test_what_is_missing_comes_from_the_neighbour_and_then_from_english() -> None:
    with words.speaking(parse_tag("mai")):  # Maithili's readers read Hindi
        assert words._("Sign in") != "Sign in"
    with words.speaking(parse_tag("sat")):
        assert words._("nobody translated this") == "nobody translated this"


def test_a_number_chooses_its_form() -> None:
    with words.speaking(ENGLISH):
        forms = [words._n("%(count)s call", "%(count)s calls", count) for count in (0, 1, 2)]
    assert forms == ["0 calls", "1 call", "2 calls"]


def test_a_language_is_spoken_in_its_block_only() -> None:
    with words.speaking(parse_tag("ta")):
        assert words.spoken() == parse_tag("ta")
    assert words.spoken() == ENGLISH


def test_a_text_of_another_language_is_noticed() -> None:
    with words.speaking(parse_tag("mai")):
        assert not words.borrowed()
        words._("Sign in")
        assert words.borrowed()
    with words.speaking(parse_tag("hi")):
        words._("Sign in")
        words._n("%(amount)s call", "%(amount)s calls", 2, amount=2)
        assert not words.borrowed()
        words._("nobody translated this")
        assert words.borrowed()


def test_an_empty_text_is_not_the_catalogs_head() -> None:
    with words.speaking(parse_tag("hi")):
        assert words.gettext("") == ""
