"""Payouts: what a provider is owed goes to its bank account, step by step. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from haat.kernel.errors import Conflict, ValidationFailed
from haat.kernel.text import check_name
from haat.language.messages import _, gettext
from haat.usage.model import csv_safe


class Status(StrEnum):
    """Where a payout is on its way.

    ``draft`` links the rows it settles; ``held`` waits for the operator's release; ``approved`` goes into the next
    file; ``sent`` is with the bank; ``paid`` has arrived; ``failed`` was refused by the bank; ``reversed`` has let its
    rows go, which the next draft takes up.
    """

    DRAFT = "draft"
    HELD = "held"
    APPROVED = "approved"
    SENT = "sent"
    PAID = "paid"
    FAILED = "failed"
    REVERSED = "reversed"


STEPS: dict[str, tuple[frozenset[Status], Status]] = {
    "approve": (frozenset({Status.DRAFT, Status.FAILED}), Status.APPROVED),
    "hold": (frozenset({Status.DRAFT, Status.APPROVED, Status.FAILED}), Status.HELD),
    "release": (frozenset({Status.HELD}), Status.DRAFT),
    "send": (frozenset({Status.APPROVED}), Status.SENT),
    "pay": (frozenset({Status.SENT}), Status.PAID),
    "fail": (frozenset({Status.SENT}), Status.FAILED),
    "reverse": (
        frozenset({Status.DRAFT, Status.HELD, Status.APPROVED, Status.FAILED, Status.PAID}),
        Status.REVERSED,
    ),
}
"""Each step: the statuses from which it may be taken, and where it leads. What was sent is paid or fails first."""

STEP_EVENTS = {
    "approve": "payout.approved",
    "hold": "payout.held",
    "release": "payout.released",
    "send": "payout.sent",
    "pay": "payout.paid",
    "fail": "payout.failed",
    "reverse": "payout.reversed",
}

_IFSC = re.compile(r"[A-Z]{4}0[A-Z0-9]{6}")  # RBI: bank, a zero, branch
_NUMBER = re.compile(r"[0-9]{9,18}")  # NPCI: account numbers of Indian banks


@dataclass(frozen=True, slots=True)
class Account:
    """A provider's bank account as anybody may see it: the number's last four digits."""

    id: UUID
    holder: str
    ifsc: str
    last_four: str
    added_at: datetime

    @property
    def label(self) -> str:
        return f"{self.ifsc} …{self.last_four}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a provider's payouts: its own terms where there are any, else the settings'."""

    minimum: Decimal
    delay_days: int
    withholdings: dict[str, str]
    stopped: str


@dataclass(frozen=True, slots=True)
class Payout:
    """Money on its way to a provider; rupees and whole paise."""

    id: UUID
    org_id: UUID
    status: str
    amount: Decimal
    account: str
    file_id: UUID | None
    bank_reference: str
    reason: str
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class PayoutRow:
    """One of the rows that a payout settles: a settlement, or what was held of one, or released."""

    id: UUID
    kind: str
    reference: UUID
    period: str | None
    amount: Decimal
    active: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """An amount of a provider's that is paid out only after its release."""

    id: UUID
    org_id: UUID
    settlement_id: UUID | None
    dispute_id: UUID | None
    amount: Decimal
    reason: str
    placed_at: datetime
    released_at: datetime | None
    release_reason: str


def next_status(status: str, step: str) -> Status:
    """Return where a step leads; raise Conflict when a payout can't take it."""
    allowed, to = STEPS[step]
    if status not in allowed:
        whence = ", ".join(f"`{one}`" for one in sorted(allowed))
        raise Conflict(
            _(
                "This payout is `%(status)s`; `%(step)s` asks for one that is %(whence)s.",
                status=gettext(status),
                step=step,
                whence=whence,
            )
        )
    return to


def check_account(holder: str, number: str, ifsc: str) -> tuple[str, str, str]:
    """Return an account's details in their usual form; raise ValidationFailed that names what is wrong.

    Spaces and dashes in the number are left out, letters of the IFSC made capital.
    """
    number, ifsc = re.sub(r"[ -]", "", number), ifsc.strip().upper()
    wrong = []
    try:
        holder = check_name(holder, "holder", 100)
    except ValidationFailed as error:
        wrong += error.extensions["errors"]
    if not _NUMBER.fullmatch(number) or not number.isascii():
        wrong.append({"field": "number", "message": _("Enter the 9 to 18 digits of the account number.")})
    elif not number.strip("0"):
        wrong.append({"field": "number", "message": _("This is no account number: all its digits are zero.")})
    if not _IFSC.fullmatch(ifsc):
        wrong.append(
            {"field": "ifsc", "message": _("Enter the branch's IFSC: four letters, a zero, six letters or digits.")}
        )
    if wrong:
        raise ValidationFailed(errors=wrong)
    return holder, number, ifsc


FILE_COLUMNS = ("payout_id", "beneficiary_name", "account_number", "ifsc", "amount", "currency", "narration")


def payout_file(rows: Iterable[Sequence[Any]]) -> str:
    """Return the file for a bank's bulk upload: CSV in the order of `FILE_COLUMNS`, CRLF, amounts with two decimals.

    No cell begins as a spreadsheet's formula does.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(FILE_COLUMNS)
    for row in rows:
        writer.writerow([csv_safe(cell) for cell in row])
    return buffer.getvalue()


def narration(payout: UUID) -> str:
    """Return what stands on the provider's bank statement: letters and digits, 20 at most, as banks take it."""
    return f"HAAT{payout.hex[-16:].upper()}"
