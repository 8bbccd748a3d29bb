"""The bank's answers to payout files: what arrived, what came back. A file is taken whole, or not at all."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any, Literal
from uuid import UUID

from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock
from haat.kernel.errors import HaatError, ValidationFailed
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.language.messages import _
from haat.ledger.model import Operation
from haat.ledger.service import post
from haat.settlement import payout_store, steps, store
from haat.settlement.payout_model import Status

COLUMNS = ("payout_id", "status", "amount", "bank_reference", "reason")
"""What an answer says; ``currency`` may be there too, and whatever else is there is passed over."""
MOST_ROWS = 20_000
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9/-]{0,59}")


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of a file: what became of a payout. ``bank_reference`` is the bank's number of the transfer (UTR)."""

    row: int
    payout: UUID
    status: Literal["paid", "returned"]
    amount: Decimal
    bank_reference: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that was not taken, and why. Rows count from 1, which is the heading."""

    row: int
    reference: str
    reason: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What a file came to. ``known`` rows said what was known already."""

    paid: Sequence[UUID]
    returned: Sequence[UUID]
    known: int
    refused: Sequence[Refusal]


def read_answers(text: bytes) -> tuple[list[Answer], list[Refusal]]:
    """Return the rows of a bank's file, and those that can't be read; raise ValidationFailed for what is no such file.

    CSV in UTF-8 with a heading that has `COLUMNS`, in any order.
    """
    answers: list[Answer] = []
    refused: list[Refusal] = []
    for number, cells in _rows(text):
        try:
            answers.append(_answer(number, cells))
        except ValueError as error:
            refused.append(Refusal(number, cells.get("payout_id", "")[:60], str(error)))
    return answers, refused


def _rows(text: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        reader = csv.reader(io.StringIO(text.decode("utf-8-sig")), strict=True)
        rows = list(islice(reader, MOST_ROWS + 1))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _wrong_file(f"It is no CSV in UTF-8: {error}.") from error
    heading = [cell.strip().lower() for cell in rows[0]] if rows else []
    if missing := [name for name in COLUMNS if name not in heading]:
        raise _wrong_file(f"Its first line must name the columns {', '.join(COLUMNS)}: {missing[0]} is missing.")
    if len(set(heading)) < len(heading):
        raise _wrong_file("Two of its columns have the same name.")
    if len(rows) > MOST_ROWS:
        raise _wrong_file(f"It has more than {MOST_ROWS:,} rows: send it in parts.")
    for number, cells in enumerate(rows[1:], 2):
        if any(cell.strip() for cell in cells):
            yield number, dict(zip(heading, (cell.strip() for cell in cells), strict=False))


def _wrong_file(message: str) -> ValidationFailed:
    return ValidationFailed(
        _("The bank's file can't be read: nothing was taken."), errors=[{"field": "file", "message": message}]
    )


def _answer(number: int, cells: Mapping[str, str]) -> Answer:
    """Return what a row says; raise ValueError that says what is wrong with it."""
    if missing := [name for name in COLUMNS if name not in cells]:
        raise ValueError(f"The row has no {missing[0]}.")
    try:
        payout = UUID(cells["payout_id"])
    except ValueError:
        raise ValueError("Its payout_id is none of ours: ours are UUIDs.") from None
    status = cells["status"].lower()
    if status not in ("paid", "returned"):
        raise ValueError("Its status is neither paid nor returned.")
    try:
        amount = Decimal(cells["amount"])
    except InvalidOperation:
        raise ValueError("Its amount is no number.") from None
    if not amount.is_finite():
        raise ValueError("Its amount is no number.")
    if (currency := cells.get("currency", "").upper()) not in ("", "INR"):
        raise ValueError(f"It is in {currency[:3]}, and payouts are in INR.")
    reference = cells["bank_reference"]
    if not _REFERENCE.fullmatch(reference) and (reference or status == "paid"):
        raise ValueError("Its bank_reference is no bank's number: 1 to 60 letters, digits, dashes and slashes.")
    if status == "paid":
        return Answer(number, payout, "paid", amount, reference, "")
    try:
        reason = check_name(cells["reason"], "reason", 300)
    except ValidationFailed:
        raise ValueError("It came back and gives no reason of at most 300 characters.") from None
    return Answer(number, payout, "returned", amount, reference, reason)


class BankAnswers:
    """Takes the bank's answers: payouts are paid, or returned and let go, so that the next draft has their rows."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock

    async def take(self, actor: Actor, text: bytes, *, skip_refused: bool = False) -> Answered:
        """Record what a bank's file says (operator), all of it or nothing; taking it again changes nothing.

        A row is refused, with its reason, that names a payout we didn't send, another amount or currency, or an end
        that the payout can't come to. Then ValidationFailed tells of all refused rows and nothing is taken; with
        ``skip_refused`` all others are. A payout that came back before it counted as paid is failed and let go, one
        that was paid is reversed in the books.
        """
        actor.require(Permission.SETTLEMENTS_RUN)
        answers, refused = read_answers(text)
        digest, now = hashlib.sha256(text).hexdigest(), self._clock.now()
        done: dict[str, list[UUID]] = {"paid": [], "returned": []}
        known = 0
        operations: list[Operation] = []
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            named = [answer.payout for answer in answers]
            await store.lock(connection, *{row["org_id"] for row in await payout_store.named(connection, named)})
            payouts = {row["id"]: row for row in await payout_store.named(connection, named)}
            for answer in answers:
                payout = payouts.get(answer.payout)
                try:
                    if payout is None or payout["file_id"] is None:
                        raise ValueError("We sent no such payout to a bank.")
                    _check_amount(payout, answer)
                    if _is_known(payout, answer):
                        known += 1
                        continue
                    operations += await _take(connection, actor.label, payout, answer, digest, now)
                except (ValueError, HaatError) as error:
                    reason = error.detail if isinstance(error, HaatError) else str(error)
                    refused.append(Refusal(answer.row, str(answer.payout), reason))
                    continue
                done[answer.status].append(answer.payout)
                payouts |= {row["id"]: row for row in await payout_store.named(connection, [answer.payout])}
            refused.sort(key=lambda one: one.row)
            if refused and not skip_refused:
                errors = [{"field": f"row {one.row}", "message": one.reason} for one in refused]
                raise ValidationFailed(_("Rows of the bank's file were refused: nothing was taken."), errors=errors)
            await post(connection, operations)
        return Answered(done["paid"], done["returned"], known, refused)


def _check_amount(payout: Mapping[str, Any], answer: Answer) -> None:
    if answer.amount != payout["amount"]:
        raise ValueError(f"It says ₹{answer.amount}, and the payout is of ₹{payout['amount']:.2f}.")


def _is_known(payout: Mapping[str, Any], answer: Answer) -> bool:
    """Tell whether a payout has come already to what an answer says; raise ValueError where it was paid otherwise."""
    if answer.status == "returned":
        return bool(payout["status"] == Status.REVERSED)
    if payout["status"] not in (Status.PAID, Status.REVERSED) or not payout["bank_reference"]:
        return False
    if payout["bank_reference"] != answer.bank_reference:
        raise ValueError(f"It is paid already, under the bank's reference {payout['bank_reference']}.")
    return True


async def _take(
    connection: Connection, by: str, payout: Mapping[str, Any], answer: Answer, digest: str, now: datetime
) -> list[Operation]:
    """Move a payout to where an answer says it is; raise Conflict, before anything is written, if it can't be there."""
    if answer.status == "paid":
        told = {"bank_reference": answer.bank_reference, "answer": digest}
        return await steps.move_payout(connection, by, payout, "pay", now, **told)
    told = {"reason": answer.reason, "returned_as": answer.bank_reference, "answer": digest}
    operations: list[Operation] = []
    out = payout["status"] in (Status.SENT, Status.PAID)
    if out and (not answer.bank_reference or answer.bank_reference != payout["bank_reference"]):
        await _check_sent_once(connection, payout)
    if payout["status"] == Status.SENT:
        operations += await steps.move_payout(connection, by, payout, "fail", now, **told)
        (payout,) = await payout_store.named(connection, [payout["id"]])
    return operations + await steps.move_payout(connection, by, payout, "reverse", now, **told)


async def _check_sent_once(connection: Connection, payout: Mapping[str, Any]) -> None:
    """Raise ValueError for a payout that was with the bank more than once: the answer may be to the first time.

    To let it go while it is on its way, or has arrived, would pay it twice.
    """
    history = await events.read_stream(connection, f"payout/{payout['id']}")
    if sum(event.type == "payout.sent" for event in history) > 1:
        raise ValueError("We sent it more than once: see to which this answers, and record it by hand.")
