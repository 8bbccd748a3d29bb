import re
import sys
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.plugins.builtin import personal
from haat.plugins.builtin.masking import Masking, MaskingConfiguration
from haat.plugins.builtin.personal import find

mask = Masking(MaskingConfiguration()).change
DIGITS = {"Deva": "०१२३४५६७८९", "Beng": "০১২৩৪৫৬৭৮৯", "Taml": "௦௧௨௩௪௫௬௭௮௯", "Arab": "۰۱۲۳۴۵۶۷۸۹", "Telu": "౦౧౨౩౪౫౬౭౮౯"}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to asha.rao+work@example.co.in.", "Write to [EMAIL]."),
        ("संपर्क@डाटा.भारत पर लिखें।", "[EMAIL] पर लिखें।"),
        ("<a@b.org>,c_d@e-f.info;", "<[EMAIL]>,[EMAIL];"),
        ("मेल:asha@example.inको", "मेल:[EMAIL]"),
        ("Pay asha@okhdfcbank or 9876543210@ybl", "Pay [UPI] or [UPI]"),
        ("Call +91 98765 43210 or 098765-43210", "Call [PHONE] or [PHONE]"),
        ("9876543210 9876543211", "[PHONE] [PHONE]"),
        ("0091-9876543210, +44 20 7946 0958", "[PHONE], [PHONE]"),
        ("मोबाइल९८७६५४३२१०है", "मोबाइल[PHONE]है"),
        ("Aadhaar 2341 2341 2346", "Aadhaar [AADHAAR]"),
        ("PAN: ABCPE1234F, abcpe1234f", "PAN: [PAN], [PAN]"),
        ("GSTIN 27AAPFU0939F1ZV", "GSTIN [GSTIN]"),
        ("4111-1111-1111-1111 / 378282246310005 / 6011 1111 1111 1117", "[CARD] / [CARD] / [CARD]"),
        ("IFSC SBIN0001234, a/c 12345678901", "IFSC [IFSC], a/c [ACCOUNT]"),
        ("खाता संख्या १२३४५६७८९०१", "खाता संख्या [ACCOUNT]"),
        ("Passport no. K1234567", "Passport no. [PASSPORT]"),
        ("पासपोर्ट k1234567", "पासपोर्ट [PASSPORT]"),
    ],
)
def test_personal_data_is_replaced_by_its_kind(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "Order 1234567890 of 2026-11-21 10:22:33.123456",
        "1700000000 1700000000123",
        "2341 2341 2347",
        "4111-1111-1111-1112",
        "27AAPFU0939F1ZW",
        "K1234567 is a part number",
        "12345678901 is a parcel",
        "@home and someone@ and a @ b",
        "react@18.3.1 needs node@22.10",
        "asha@home",
        "550e8400-e29b-41d4-a716-446655440000",
        "x9876543210",
        "98765432101234567890123",
        "INTERNATIONAL",
        "",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize("script", DIGITS)
@pytest.mark.parametrize("number", ["9876543210", "234123412346", "4111111111111111"])
def test_digits_of_every_script_count(script: str, number: str) -> None:
    written = number.translate(str.maketrans("0123456789", DIGITS[script]))
    assert mask(f"({written})") == mask(f"({number})") != f"({number})"


def test_the_name_that_a_value_stands_under_counts_as_a_word_before_it() -> None:
    assert mask("K1234567", "passport_no") == "[PASSPORT]"
    assert mask("12345678901", "accountNumber") == "[ACCOUNT]"
    assert mask("12345678901", "parcel") == "12345678901"


def test_only_the_kinds_asked_for_are_found() -> None:
    text = "asha@example.in 9876543210"
    assert [f.kind for f in find(text, frozenset({"phone"}))] == ["phone"]


def test_an_aadhaar_number_with_one_wrong_digit_is_none() -> None:
    right = "234123412346"
    for place in range(12):
        for digit in "0123456789":
            changed = right[:place] + digit + right[place + 1 :]
            if changed != right:
                assert not personal._verhoeff(changed)


pieces = st.sampled_from(
    ["9876543210", "4111 1111", "a@b.in", "@", " ", "-", ".", "ABCPE1234F", "account ", "K1234567", "९८७", "é", "+91"]
)
texts = st.lists(pieces | st.text(max_size=4), max_size=12).map("".join)


@given(texts)
def test_findings_are_in_order_apart_and_inside_the_text(text: str) -> None:
    found = find(text)
    assert all(0 <= f.start < f.end <= len(text) for f in found)
    assert all(earlier.end <= later.start for earlier, later in pairwise(found))


@given(texts)
def test_masking_keeps_all_that_is_not_found(text: str) -> None:
    kept, at = "", 0
    for f in find(text):
        kept, at = kept + text[at : f.start] + "\0", f.end
    kept += text[at:]
    assert re.sub(r"\[(EMAIL|UPI|PHONE|AADHAAR|PAN|GSTIN|CARD|IFSC|ACCOUNT|PASSPORT)\]", "\0", mask(text)) == re.sub(
        r"\[(EMAIL|UPI|PHONE|AADHAAR|PAN|GSTIN|CARD|IFSC|ACCOUNT|PASSPORT)\]", "\0", kept
    )


@given(st.text(st.characters(exclude_categories=["Nd"], exclude_characters="@")))
def test_text_without_digits_and_at_signs_is_never_touched(text: str) -> None:
    assert mask(text) is text


# --- bounded time, without a clock ---------------------------------------------------------------


def patterns() -> list[re.Pattern[str]]:
    return [value for value in vars(personal).values() if isinstance(value, re.Pattern)]


def repeats_within_repeats(pattern: re.Pattern[str]) -> bool:
    """Tell whether a repetition without a bound holds another one."""
    from re import _constants, _parser  # type: ignore[attr-defined]  # the only place that shows a pattern's tree

    repeats = {_constants.MAX_REPEAT, _constants.MIN_REPEAT}

    def holds(tree: Any, inside: bool) -> bool:
        for operation, argument in tree:
            if operation in repeats:
                if inside:
                    return True
                unbounded = argument[1] is _constants.MAXREPEAT
                if holds(argument[2], inside or unbounded):
                    return True
            elif operation in (_constants.SUBPATTERN, _constants.BRANCH):
                trees = [argument[3]] if operation is _constants.SUBPATTERN else argument[1]
                if any(holds(tree, inside) for tree in trees):
                    return True
        return False

    return holds(_parser.parse(pattern.pattern, pattern.flags), False)


def test_the_check_for_repeats_within_repeats_can_fail() -> None:
    assert repeats_within_repeats(re.compile("(a+)+"))
    assert repeats_within_repeats(re.compile("(?:a|b*)*"))


@pytest.mark.parametrize("pattern", patterns(), ids=lambda pattern: pattern.pattern[:30])
def test_no_pattern_repeats_a_repetition(pattern: re.Pattern[str]) -> None:
    assert not repeats_within_repeats(pattern)


def steps_of(action: Callable[[], object]) -> int:
    """Count the lines of Python that are run."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "piece", ["1 ", "9", "@", "a@", "a.", "9876543210 ", "1-", "account 1", "ABCPE1234", "a@b.", "+"]
)
def test_twice_the_text_takes_no_more_than_twice_the_steps(piece: str) -> None:
    short, long = steps_of(lambda: find(piece * 300)), steps_of(lambda: find(piece * 600))
    assert long <= 2.2 * short + 200


def test_every_decimal_digit_of_unicode_is_read() -> None:
    for digits in DIGITS.values():
        assert [unicodedata.decimal(digit) for digit in digits] == list(range(10))
