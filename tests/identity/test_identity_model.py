"""API keys, e-mail addresses, passwords, GSTINs: the rules that need no database."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.identity.model import (
    Credential,
    check_email,
    check_password,
    check_state,
    key_prefix,
    make_key,
    parse_key,
)
from haat.kernel.errors import InvalidCredential, ValidationFailed
from haat.kernel.gstin import GSTIN_LETTERS, check_gstin, gstin_check_letter

BASE62 = string.digits + string.ascii_letters
KEYS = st.builds(make_key, st.sampled_from(["live", "test"]))


@given(st.sampled_from(["live", "test"]))
def test_a_key_says_its_mode_and_is_read_back(mode: Any) -> None:
    key = make_key(mode)
    assert parse_key(key) == mode
    assert key.startswith(f"haat_{mode}_") and len(key) == 38
    assert set(key[10:]) <= set(BASE62)


def test_keys_do_not_repeat() -> None:
    assert len({make_key() for _ in range(1000)}) == 1000


@given(KEYS)
def test_a_change_of_any_single_character_is_refused(key: str) -> None:
    for place, letter in enumerate(key):
        for other in ("A", "z", "0", "_", "é", " "):
            if other != letter:
                with pytest.raises(InvalidCredential):
                    parse_key(key[:place] + other + key[place + 1 :])


@given(KEYS, st.integers(0, 37), st.sampled_from(BASE62))
def test_a_lost_or_added_character_is_refused(key: str, place: int, extra: str) -> None:
    for wrong in (key[:place] + key[place + 1 :], key[:place] + extra + key[place:]):
        with pytest.raises(InvalidCredential):
            parse_key(wrong)


@given(KEYS, st.integers(10, 36))
def test_two_characters_that_changed_places_are_refused(key: str, place: int) -> None:
    swapped = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    if swapped != key:
        with pytest.raises(InvalidCredential):
            parse_key(swapped)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader_of_keys(text: str) -> None:
    for wrong in (text, "haat_live_" + text):
        with pytest.raises(InvalidCredential):
            parse_key(wrong)


def test_a_live_key_does_not_become_a_test_key() -> None:
    with pytest.raises(InvalidCredential):
        parse_key(make_key("live").replace("live", "test"))


def test_what_is_shown_of_a_key_is_its_scheme_and_four_characters() -> None:
    key = make_key("test")
    assert key_prefix(key) == key[:14] and key_prefix(key).startswith("haat_test_")


NOW = datetime(2026, 11, 21, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "active"),
    [
        (None, None, True),
        (NOW + SECOND, None, True),
        (NOW, None, False),
        (None, NOW, False),
        (None, NOW + SECOND, True),
        (NOW, NOW + SECOND, False),
        (NOW + SECOND, NOW, False),
    ],
)
def test_a_key_ends_at_its_expiry_or_its_revocation(
    expires_at: datetime | None, revoked_at: datetime | None, active: bool
) -> None:
    some = UUID(int=1)
    credential = Credential(
        some, some, some, "", "haat", "", "", (), NOW, expires_at, revoked_at, rotated_to=None, last_used_at=None
    )
    assert credential.is_active(NOW) is active


@pytest.mark.parametrize("email", ["asha@example.in", "a.b+c@sub.example.co.in", "आशा@example.in", " asha@example.in "])
def test_an_address_is_taken_without_the_space_around_it(email: str) -> None:
    assert check_email(email) == email.strip()


@pytest.mark.parametrize(
    "email",
    [
        "",
        "asha",
        "@example.in",
        "asha@",
        "asha@@example.in",
        "asha@example..in",
        "a b@example.in",
        "asha@-example.in",
        "asha@example.in-",
        "asha@exa_mple.in",
        "asha@example.in\nBcc: all@example.in",
        "Asha <asha@example.in>",
        "asha,ravi@example.in",
        "as\0ha@example.in",
        "as\x07ha@example.in",
        "as\ud800ha@example.in",
        "as\u202eha@example.in",
        "a" * 65 + "@example.in",
        "asha@" + "a" * 260,
    ],
)
def test_what_is_no_address_is_refused_at_its_field(email: str) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        check_email(email)
    assert refusal.value.extensions["errors"][0]["field"] == "email"


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader_of_addresses(text: str) -> None:
    try:
        taken = check_email(text)
    except ValidationFailed:
        return
    assert taken.count("@") == 1 and not any(letter.isspace() for letter in taken)


@pytest.mark.parametrize("password", ["ten letters", "कृपया दरवाज़ा खोलो", " " * 10, "x" * 256])
def test_a_password_is_taken_as_it_is(password: str) -> None:
    assert check_password(password) == password


@pytest.mark.parametrize("password", ["", "nine char", "x" * 257, "surrogate \ud800", "with a \0 byte"])
def test_a_password_too_short_or_too_long_or_unstorable_is_refused(password: str) -> None:
    with pytest.raises(ValidationFailed, match=r"."):
        check_password(password)


@pytest.mark.parametrize("code", ["07", "27", "33"])
def test_a_state_is_two_digits(code: str) -> None:
    assert check_state(code) == code


@pytest.mark.parametrize("code", ["", "7", "007", "DL", "०७", "²³", "07\n"])
def test_digits_of_other_kinds_are_no_state(code: str) -> None:
    with pytest.raises(ValidationFailed):
        check_state(code)


PUBLISHED = ["27AAPFU0939F1ZV", "29AAGCB7383J1Z4", "24AAACC1206D1ZM"]  # documented examples of real GSTINs


@pytest.mark.parametrize("gstin", PUBLISHED)
def test_the_check_letter_of_published_gstins_fits(gstin: str) -> None:
    assert check_gstin(f" {gstin.lower()} ") == gstin


@pytest.mark.parametrize("gstin", PUBLISHED)
def test_any_single_wrong_character_of_a_gstin_is_refused(gstin: str) -> None:
    for place, letter in enumerate(gstin):
        for other in GSTIN_LETTERS:
            if other != letter:
                with pytest.raises(ValidationFailed):
                    check_gstin(gstin[:place] + other + gstin[place + 1 :])


@given(st.text(GSTIN_LETTERS, min_size=14, max_size=14), st.integers(0, 13), st.sampled_from(GSTIN_LETTERS))
def test_a_single_change_always_changes_the_check_letter(text: str, place: int, other: str) -> None:
    changed = text[:place] + other + text[place + 1 :]
    assert (gstin_check_letter(text) == gstin_check_letter(changed)) == (text == changed)


@given(st.text(max_size=20))
def test_no_text_breaks_the_reader_of_gstins(text: str) -> None:
    with pytest.raises(ValidationFailed):
        check_gstin(text + "!")
