"""The rules of texts that need no database."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from haat.content.model import (
    Line,
    State,
    check_key,
    check_reviewer,
    check_text,
    check_transition,
    check_window,
    difference,
)
from haat.infra.letters import fill
from haat.kernel.errors import Conflict, ValidationFailed
from haat.language import ENGLISH

from .conftest import GREETING, HINDI

ALLOWED = {
    ("draft", "review"),
    ("draft", "archived"),
    ("review", "draft"),
    ("review", "published"),
    ("published", "archived"),
}
STATES: tuple[State, ...] = ("draft", "review", "published", "archived")


@pytest.mark.parametrize("present", STATES)
@pytest.mark.parametrize("wanted", STATES)
def test_a_text_passes_its_states_and_no_others(present: State, wanted: State) -> None:
    if (present, wanted) in ALLOWED:
        check_transition(present, wanted)
    else:
        with pytest.raises(Conflict, match=wanted):
            check_transition(present, wanted)


@pytest.mark.parametrize("key", ["first-call", "partner.approved", "a", "v1.2_x"])
def test_a_key_is_fit_for_addresses(key: str) -> None:
    assert check_key(f" {key} ") == key


@pytest.mark.parametrize("key", ["", "-a", "a-", "A", "a/b", "a--b", "क", "reports", "new", "a" * 81, "a b", "../x"])
def test_any_other_key_is_refused(key: str) -> None:
    with pytest.raises(ValidationFailed):
        check_key(key)


def test_a_text_is_kept_in_one_spelling_with_plain_lines() -> None:
    assert check_text("  Keys  ", "\r\none  \r\ntwo\rthree\n\n") == ("Keys", "one\ntwo\nthree")
    assert check_text("क\u093c", "ab\u00adc") == (check_text("\u0958", "x")[0], "abc")
    for title, body in (("", "x"), ("x", " \n "), ("x" * 201, "x"), ("x", "y" * 60_001), ("x\u0000", "y")):
        with pytest.raises(ValidationFailed):
            check_text(title, body)


def test_a_time_ends_after_it_begins() -> None:
    first, then = datetime(2026, 12, 1, tzinfo=UTC), datetime(2026, 12, 2, tzinfo=UTC)
    for window in ((None, None), (first, None), (None, then), (first, then)):
        check_window(*window)
    for wrong in ((then, first), (first, first)):
        with pytest.raises(ValidationFailed):
            check_window(*wrong)


def test_the_author_publishes_only_where_nobody_else_can() -> None:
    check_reviewer("user/1", "user/2", ["user/1"])
    check_reviewer("user/1", "user/1", [])
    with pytest.raises(Conflict, match="colleague"):
        check_reviewer("user/1", "user/1", ["user/2"])


def test_a_difference_says_what_is_gone_and_what_is_new() -> None:
    assert difference("a\nb\nc", "a\nd\nc\ne") == [
        Line("same", "a"), Line("gone", "b"), Line("new", "d"), Line("same", "c"), Line("new", "e"),
    ]  # fmt: skip


# --- mails ------------------------------------------------------------------------------------------


def test_the_words_of_a_mail_have_its_placeholders() -> None:
    GREETING.check("नमस्ते {company}", "यहाँ: {portal}")
    GREETING.check("नमस्ते", "{company} {portal} {reason}")


@pytest.mark.parametrize(
    ("subject", "text", "said"),
    [
        ("नमस्ते", "{portal}", r"{company} is missing"),
        ("{company}", "{portal} {secret}", r"{secret} is no placeholder.*{company}, {portal}, {reason}"),
        ("{company}", "{portal} {company.__class__}", "A brace"),
        ("{company}", "{portal} {", "A brace"),
        ("{company}", "{portal} {Company}", "A brace"),
    ],
)
def test_words_that_lack_one_or_name_another_are_refused_with_the_reason(subject: str, text: str, said: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        GREETING.check(subject, text)
    assert re.search(said, refused.value.extensions["errors"][0]["message"])


def test_what_a_value_says_is_not_read_again() -> None:
    letter = fill("Hello, {company}", "{company}: {portal}", {"company": "A {portal}\nB", "portal": "http://a"})
    assert (letter.subject, letter.text) == ("Hello, A {portal} B", "A {portal}\nB: http://a\n")


def test_a_mail_that_no_catalog_has_is_in_none() -> None:
    assert GREETING.in_catalog(HINDI) is None and GREETING.in_catalog(ENGLISH) is None
