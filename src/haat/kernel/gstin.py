"""The number under which somebody is registered for GST, and the check letter at its end."""

from __future__ import annotations

import re

from haat.kernel.errors import ValidationFailed

GSTIN_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_GSTIN = re.compile(r"[0-9]{2}[A-Z]{5}[0-9]{4}[A-Z][1-9A-Z]Z[0-9A-Z]")


def gstin_check_letter(first_fourteen: str) -> str:
    """Return the check letter of a GSTIN's first fourteen (weights 1, 2 alternating, base 36)."""
    total = 0
    for place, letter in enumerate(first_fourteen):
        product = GSTIN_LETTERS.index(letter) * (1 + place % 2)
        total += product // 36 + product % 36
    return GSTIN_LETTERS[(36 - total % 36) % 36]


def check_gstin(gstin: str) -> str:
    """Return the GSTIN in capitals; raise ValidationFailed when its form or check letter is wrong."""
    gstin = gstin.strip().upper()
    if not _GSTIN.fullmatch(gstin) or gstin_check_letter(gstin[:14]) != gstin[14]:
        message = "Enter the 15 characters of the GSTIN; the last one is a check letter and does not fit."
        raise ValidationFailed(errors=[{"field": "gstin", "message": message}])
    return gstin
