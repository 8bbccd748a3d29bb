"""Personal data in text, as it is written in India: found by form and checksum, in any script's digits.

Every search takes steps in proportion to the text: no pattern repeats a repetition, and what is looked
at around a finding is bounded. Digits are Unicode decimal digits: ९८७६५४३२१० is a number like any other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

KINDS = (
    "email",
    "upi",
    "phone",
    "aadhaar",
    "pan",
    "gstin",
    "card",
    "ifsc",
    "account",
    "passport",
)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Where in a text something stands, and what it is (one of `KINDS`)."""

    start: int
    end: int
    kind: str


def find(text: str, kinds: frozenset[str] = frozenset(KINDS), key: str = "") -> list[Finding]:
    """Return what was found, in order, without overlaps; ``key`` is the name that the text stands under.

    An account number and a passport have no checksum: they need a word that names them before them, in
    the text or as its key.
    """
    found: list[Finding] = []
    if ("email" in kinds or "upi" in kinds) and "@" in text:
        found += (finding for finding in _addresses(text) if finding.kind in kinds)
    if _ANY_DIGIT.search(text):
        for kind, search in _FORMS:
            if kind in kinds:
                found += search(text)
        found += (finding for finding in _numbers(text, kinds) if finding.kind in kinds)
        if "passport" in kinds:
            found += _near(text, key, _PASSPORT, _PASSPORT_WORDS, "passport")
        if "account" in kinds:
            found += _near(text, key, _ACCOUNT, _ACCOUNT_WORDS, "account")
    return _apart(found)


def _apart(found: list[Finding]) -> list[Finding]:
    """Keep of findings that overlap the first, and of those the longest."""
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda one: (one.start, -one.end)):
        if not kept or finding.start >= kept[-1].end:
            kept.append(finding)
    return kept


# --- e-mail and UPI -----------------------------------------------------------------------------

_STOP = frozenset("@<>()[],;:\\\"'`|{}/=?&!*#$^~…।،؛؟“”‘’")
_MAX_LOCAL, _MAX_DOMAIN = 64, 253
_UPI_HANDLES = frozenset(
    """abfspay airtel allbank apl aubank axisb axisbank axl barodampay boi cbin cboi centralbank citi cnrb dbs dlb
    fbl federal freecharge hdfcbank hsbc ibl icici idbi idfcbank idfcfirst ikwik indianbank indus jio jupiteraxis kbl
    kotak mahb naviaxis okaxis okbizaxis okhdfcbank okicici oksbi paytm payzapp pingpay pnb postbank ptaxis pthdfc
    ptsbi ptyes rbl sbi sib slice superyes tapicici timecosmos ubi uco uboi unionbank upi waaxis wahdfcbank waicici
    wasbi yapl ybl yesbank yesg""".split()  # noqa: SIM905  # seventy lines of quotation marks say no more
)


def _addresses(text: str) -> Iterator[Finding]:
    """Look to both sides of every @; letters of any script, and their marks, make an address."""
    at = text.find("@")
    while at >= 0:
        start = at
        while start > 0 and at - start < _MAX_LOCAL and _in_address(text[start - 1]):
            start -= 1
        while start < at and text[start] in ".-":
            start += 1
        end = at + 1
        while end < len(text) and end - at <= _MAX_DOMAIN and _in_address(text[end]) and text[end] not in "%+":
            end += 1
        while end > at + 1 and text[end - 1] in ".-_":
            end -= 1
        domain = text[at + 1 : end]
        last = domain.rpartition(".")[2]
        if start < at and domain:
            if "." in domain and ".." not in domain and len(last) > 1 and not last[0].isdigit():
                yield Finding(start, end, "email")
            elif domain.lower() in _UPI_HANDLES:
                yield Finding(start, end, "upi")
        at = text.find("@", at + 1)


def _in_address(character: str) -> bool:
    return not character.isspace() and character not in _STOP and unicodedata.category(character)[0] != "C"


# --- forms with letters -------------------------------------------------------------------------

_ANY_DIGIT = re.compile(r"\d")
_EDGE, _END = r"(?<![A-Za-z\d])", r"(?![A-Za-z\d])"
_GSTIN = re.compile(_EDGE + r"\d\d[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z][1-9A-Z]Z[A-Z\d]" + _END, re.IGNORECASE)
_PAN = re.compile(_EDGE + r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]" + _END, re.IGNORECASE)
_IFSC = re.compile(_EDGE + r"[A-Z]{4}0[A-Z\d]{6}" + _END, re.IGNORECASE)
_IFSC_ZERO = 4


def _gstins(text: str) -> Iterator[Finding]:
    for match in _GSTIN.finditer(text):
        letters = "".join(_ascii(character) for character in match.group().upper())
        if _gstin_check(letters[:-1]) == letters[-1]:
            yield Finding(match.start(), match.end(), "gstin")


def _pans(text: str) -> Iterator[Finding]:
    return (Finding(match.start(), match.end(), "pan") for match in _PAN.finditer(text))


def _ifscs(text: str) -> Iterator[Finding]:
    # Eleven letters make a word as well: a code has more digits than its zero.
    for match in _IFSC.finditer(text):
        if any(character.isdigit() for character in match.group()[_IFSC_ZERO + 1 :]):
            yield Finding(match.start(), match.end(), "ifsc")


_FORMS: tuple[tuple[str, Callable[[str], Iterator[Finding]]], ...] = (
    ("gstin", _gstins),
    ("pan", _pans),
    ("ifsc", _ifscs),
)


# --- numbers ------------------------------------------------------------------------------------

_GROUP = re.compile(r"\d+")
_BETWEEN = frozenset(" \u00a0\u202f\u2009-\u2010\u2011\u2013.\u200b\u200c\u200d\u2060")
_JOINED_BY = 2
"""So many characters of `_BETWEEN` may stand between two groups of one number: ``98765 - 43210`` has three."""
_LONGEST = 19


def _numbers(text: str, kinds: frozenset[str]) -> Iterator[Finding]:
    """Join groups of digits as people write them, and keep what is a number somebody has."""
    groups = [(match.start(), match.end()) for match in _GROUP.finditer(text)]
    at = 0
    while at < len(groups):
        start = groups[at][0]
        best = 0
        kind = ""
        if not _touches_letter(text, start - 1):
            digits = ""
            for last in range(at, len(groups)):
                if last > at and not _joins(text, groups[last - 1][1], groups[last][0]):
                    break
                if groups[last][1] - groups[last][0] > _LONGEST:
                    break
                digits += "".join(_ascii(character) for character in text[groups[last][0] : groups[last][1]])
                if len(digits) > _LONGEST:
                    break
                found = "" if _touches_letter(text, groups[last][1]) else _kind_of(digits, _plus(text, start))
                if found in kinds:
                    best, kind = last + 1, found
        if best:
            yield Finding(start - (1 if _plus(text, start) else 0), groups[best - 1][1], kind)
            at = best
        else:
            at += 1


def _joins(text: str, end: int, start: int) -> bool:
    return start - end <= _JOINED_BY and all(character in _BETWEEN for character in text[end:start])


def _touches_letter(text: str, at: int) -> bool:
    # Latin letters belong to identifiers; those of other scripts are often written right beside a number.
    return 0 <= at < len(text) and (text[at] == "_" or (text[at].isascii() and text[at].isalpha()))


def _plus(text: str, start: int) -> bool:
    return start > 0 and text[start - 1] == "+"


def _kind_of(digits: str, plus: bool) -> str:
    if _is_phone(digits, plus):
        return "phone"
    if len(digits) == 12 and digits[0] >= "2" and _verhoeff(digits):
        return "aadhaar"
    if _is_card(digits):
        return "card"
    return ""


def _is_phone(digits: str, plus: bool) -> bool:
    """Mobile numbers, which begin with 6 to 9; any international one after a plus."""
    if plus:
        return 8 <= len(digits) <= 15 and digits[0] != "0"
    for prefix in ("", "0", "91", "091", "0091"):
        if len(digits) == len(prefix) + 10 and digits.startswith(prefix) and digits[len(prefix)] in "6789":
            # Twelve digits that begin with 91 may be an Aadhaar number: its checksum decides.
            return not (len(digits) == 12 and _verhoeff(digits))
    return False


def _is_card(digits: str) -> bool:
    """Lengths and first digits in use (ISO/IEC 7812; RuPay, Visa, Mastercard, American Express, …), then Luhn."""
    length, two, three, four = len(digits), digits[:2], digits[:3], digits[:4]
    fits = (
        (digits[:1] == "4" and length in (13, 16, 19))
        or (("51" <= two <= "55" or "2221" <= four <= "2720") and length == 16)
        or (two in ("34", "37") and length == 15)
        or (two in ("36", "38", "30") and length == 14)
        or (two in ("60", "64", "65", "67", "62") and 16 <= length <= 19)
        or ((two in ("81", "82", "35") or three == "508") and length == 16)
    )
    return fits and _luhn(digits)


# --- what needs a word beside it ----------------------------------------------------------------

_PASSPORT = re.compile(_EDGE + r"[A-Z][ \-]?[1-9]\d{6}" + _END, re.IGNORECASE)
_ACCOUNT = re.compile(r"(?<![A-Za-z\d])\d{9,18}(?![A-Za-z\d])")
_PASSPORT_WORDS = re.compile(r"passport|पासपोर्ट|پاسپورٹ|পাসপোর্ট|பாஸ்போர்ட்|పాస్‌?పోర్ట్|પાસપોર્ટ|ਪਾਸਪੋਰਟ", re.IGNORECASE)
_ACCOUNT_WORDS = re.compile(
    r"account|acct|a/c|acc\.? ?no|खाता|खाते|अकाउंट|کھاتہ|کھاتے|اکاؤنٹ|অ্যাকাউন্ট|হিসাব|கணக்கு|ఖాతా|ખાતા|ਖਾਤਾ|[A-Z]{4}0[A-Z\d]{6}",
    re.IGNORECASE,
)
_WITHIN = 48


def _near(text: str, key: str, form: re.Pattern[str], words: re.Pattern[str], kind: str) -> Iterator[Finding]:
    named = bool(key) and words.search(key) is not None
    for match in form.finditer(text):
        if named or words.search(text, max(0, match.start() - _WITHIN), match.start()):
            yield Finding(match.start(), match.end(), kind)


# --- checksums ----------------------------------------------------------------------------------

_TIMES = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
"""The dihedral group of order ten, in which Verhoeff's check digit is computed."""
_PERMUTED = ["0123456789", "1576283094"]
for _ in range(6):
    _PERMUTED.append("".join(_PERMUTED[1][int(digit)] for digit in _PERMUTED[-1]))


def _verhoeff(digits: str) -> bool:
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = int(_TIMES[check][int(_PERMUTED[place % 8][int(digit)])])
    return check == 0


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


_BASE36 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _gstin_check(letters: str) -> str:
    total = 0
    for place, letter in enumerate(letters):
        product = _BASE36.index(letter) * (1 + place % 2)
        total += product // 36 + product % 36
    return _BASE36[-total % 36]


def _ascii(character: str) -> str:
    return character if character.isascii() else str(unicodedata.decimal(character, 0))
