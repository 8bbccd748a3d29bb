"""The bank's answers: each payout comes to its end once, a refused row says why, and nothing is half done."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.errors import PermissionDenied, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM
from haat.settlement.bank_answers import COLUMNS, MOST_ROWS, BankAnswers, read_answers
from haat.settlement.payout_model import Payout

from .counting_house import ACCOUNT, House, partner

HEADING = ",".join(COLUMNS)
SOME = "0193aaaa-0000-7000-8000-000000000001"


def file_of(*rows: str, heading: str = HEADING) -> bytes:
    return "\r\n".join([heading, *rows, ""]).encode()


def paid(payout: Payout, *, amount: str = "70.00", utr: str = "SBIN126334000001") -> str:
    return f"{payout.id},paid,{amount},{utr},"


def returned(payout: Payout, *, amount: str = "70.00", reason: str = "Account closed") -> str:
    return f"{payout.id},returned,{amount},,{reason}"


@pytest.fixture
def answers(house: House) -> BankAnswers:
    return house.bank_answers


async def sent(house: House) -> Payout:
    """Return a payout of ₹70.00 that is with the bank."""
    await house.settled("100.00")
    (payout,) = (await house.payouts.draft_all(PLATFORM)).drafted
    await house.payouts.approve(PLATFORM, payout.id)
    await house.payouts.send(PLATFORM)
    return payout


async def two_sent(house: House) -> tuple[Payout, Payout]:
    """Return payouts of ₹70.00 and ₹7.00 to two providers, both with the bank."""
    other = await house.bazaar.subscribe(
        await house.bazaar.organisation(), await house.bazaar.service("read", "akshara", price="1")
    )
    await house.bazaar.take([house.bazaar.event(other, "10.00")])
    await house.payouts.set_account(partner(other.service.org), **ACCOUNT)
    await house.settled("100.00")
    one, two = sorted((await house.payouts.draft_all(PLATFORM)).drafted, key=lambda payout: -payout.amount)
    for payout in (one, two):
        await house.payouts.approve(PLATFORM, payout.id)
    await house.payouts.send(PLATFORM)
    return one, two


async def status(house: House, payout: Payout) -> str:
    return (await house.payouts.story(PLATFORM, payout.id)).payout.status


def reasons(refused: ValidationFailed) -> dict[str, str]:
    return {one["field"]: one["message"] for one in refused.extensions["errors"]}


# --- reading ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "payout_id is missing"),
        (b"payout_id,status,amount,reason\n", "bank_reference is missing"),
        (file_of(heading=f"{HEADING},amount"), "same name"),
        (b"\xff\xfe\x00", "no CSV in UTF-8"),
        (file_of('"half'), "no CSV"),
        (file_of(*["x"] * MOST_ROWS), "in parts"),
    ],
)
def test_what_is_no_file_of_answers_is_refused_whole(text: bytes, says: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        read_answers(text)
    assert says in reasons(refused.value)["file"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("HAAT42,paid,1,U1,", "none of ours"),
        (f"{SOME},done,1,U1,", "neither paid nor returned"),
        (f"{SOME},paid,much,U1,", "no number"),
        (f"{SOME},paid,1,,", "no bank's number"),
        (f"{SOME},paid,1,=1+1,", "no bank's number"),
        (f"{SOME},returned,1,,", "gives no reason"),
        (f"{SOME},returned,1,,{'x' * 301}", "gives no reason"),
        (f"{SOME},paid,1", "no bank_reference"),
    ],
)
def test_a_row_that_says_nothing_clear_is_refused_with_its_number(row: str, says: str) -> None:
    answers, (refused,) = read_answers(file_of("", row))
    assert answers == [] and refused.row == 3 and says in refused.reason


def test_a_file_is_read_with_other_columns_in_any_order_in_capitals_and_behind_a_mark() -> None:
    identifier = new_id()
    text = f"Branch,STATUS,amount,Reason,bank_reference,currency,payout_id\nPune,PAID,70.0,,U/1-2,inr,{identifier}\n"
    ((answer,), refused) = read_answers(text.encode("utf-8-sig"))
    assert refused == []
    assert (answer.payout, answer.status, answer.amount, answer.bank_reference) == (identifier, "paid", 70, "U/1-2")


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: f"{HEADING}\n{text}".encode()))
def test_whatever_a_file_holds_is_read_or_refused(text: bytes) -> None:
    try:
        answers, _ = read_answers(text)
    except ValidationFailed:
        return
    assert all(one.status in ("paid", "returned") for one in answers)


# --- taking -------------------------------------------------------------------------------------------


async def test_what_arrived_is_posted_once_however_often_the_file_comes(house: House, answers: BankAnswers) -> None:
    payout = await sent(house)
    done = await answers.take(PLATFORM, file_of(paid(payout)))
    assert (done.paid, done.returned, done.known, done.refused) == ([payout.id], [], 0, [])
    assert await house.books("bank") == Decimal("-70.00")
    story = await house.payouts.story(PLATFORM, payout.id)
    assert (story.payout.status, story.payout.bank_reference) == ("paid", "SBIN126334000001")
    for _ in range(2):
        assert (await answers.take(PLATFORM, file_of(paid(payout), paid(payout)))).known == 2
    assert await house.books("bank") == Decimal("-70.00")
    await house.check_sums()
    await house.check_rebuild()


async def test_a_file_that_comes_several_times_at_once_is_taken_once(house: House, answers: BankAnswers) -> None:
    one, two = await two_sent(house)
    text = file_of(paid(one), returned(two, amount="7.00"))
    runs = await asyncio.gather(*(answers.take(PLATFORM, text) for _ in range(5)))
    assert sorted(run.known for run in runs) == [0, 2, 2, 2, 2]
    assert await house.books("bank") == Decimal("-70.00")
    await house.check_sums()


async def test_what_the_bank_could_not_bring_is_let_go_and_drafted_anew(house: House, answers: BankAnswers) -> None:
    payout = await sent(house)
    text = file_of(returned(payout))
    assert (await answers.take(PLATFORM, text)).returned == [payout.id]
    story = await house.payouts.story(partner(payout.org_id), payout.id)
    assert [step.type for step in story.history][-2:] == ["payout.failed", "payout.reversed"]
    assert story.history[-1].reason == "Account closed"
    assert await house.books("bank") == 0
    (again,) = (await house.payouts.draft_all(PLATFORM)).drafted
    assert (again.amount, again.id != payout.id) == (payout.amount, True)
    assert (await answers.take(PLATFORM, text)).known == 1, "the new payout is not touched by it"
    assert await status(house, again) == "draft"
    await house.check_sums()
    await house.check_rebuild()


async def test_what_comes_back_after_it_was_paid_is_reversed_in_the_books(house: House, answers: BankAnswers) -> None:
    payout = await sent(house)
    await answers.take(PLATFORM, file_of(paid(payout)))
    await answers.take(PLATFORM, file_of(returned(payout)))
    assert await house.books("bank") == 0
    assert await house.books(f"payable/{payout.org_id}") == Decimal("-70.00")
    assert (await house.payouts.balance(PLATFORM, payout.org_id)).available == Decimal("70.00")
    both = await answers.take(PLATFORM, file_of(paid(payout), returned(payout)))
    assert (both.paid, both.returned, both.known) == ([], [], 2)
    await house.check_sums()
    await house.check_rebuild()


async def test_one_file_may_tell_both_that_a_payout_arrived_and_that_it_came_back(
    house: House, answers: BankAnswers
) -> None:
    payout = await sent(house)
    done = await answers.take(PLATFORM, file_of(paid(payout), returned(payout)))
    assert (done.paid, done.returned) == ([payout.id], [payout.id])
    assert await house.books("bank") == 0 and await status(house, payout) == "reversed"
    await house.check_sums()
    await house.check_rebuild()


async def test_one_refused_row_leaves_everything_as_it_was_and_every_reason_is_told(
    house: House, answers: BankAnswers
) -> None:
    one, two = await two_sent(house)
    unknown = new_id()
    text = file_of(
        paid(one),
        f"{unknown},paid,7.00,U2,",
        paid(two, amount="7.01"),
        f"{two.id},paid,sNaN,U2,",
        "no payout,paid,7.00,U2,",
    )
    with pytest.raises(ValidationFailed, match="nothing was taken") as refused:
        await answers.take(PLATFORM, text)
    assert reasons(refused.value) == {
        "row 3": "We sent no such payout to a bank.",
        "row 4": "It says ₹7.01, and the payout is of ₹7.00.",
        "row 5": "Its amount is no number.",
        "row 6": "Its payout_id is none of ours: ours are UUIDs.",
    }
    assert [await status(house, payout) for payout in (one, two)] == ["sent", "sent"]
    assert await house.books("bank") == 0
    done = await answers.take(PLATFORM, text, skip_refused=True)
    assert (done.paid, [refusal.row for refusal in done.refused]) == ([one.id], [3, 4, 5, 6])
    assert done.refused[0].reference == str(unknown)
    assert [await status(house, payout) for payout in (one, two)] == ["paid", "sent"]
    await house.check_sums()


async def test_an_end_that_a_payout_can_not_come_to_is_refused(house: House, answers: BankAnswers) -> None:
    payout = await sent(house)
    await answers.take(PLATFORM, file_of(paid(payout)))

    async def why(text: bytes) -> str:
        with pytest.raises(ValidationFailed) as refused:
            await answers.take(PLATFORM, text)
        return reasons(refused.value)["row 2"]

    assert "already, under the bank's reference SBIN126334000001" in await why(file_of(paid(payout, utr="OTHER1")))
    dollars = file_of(f"{payout.id},paid,70.00,U1,,USD", heading=f"{HEADING},currency")
    assert await why(dollars) == "It is in USD, and payouts are in INR."
    await answers.take(PLATFORM, file_of(returned(payout)))
    (draft,) = (await house.payouts.draft_all(PLATFORM)).drafted
    assert await why(file_of(paid(draft))) == "We sent no such payout to a bank."
    await house.payouts.approve(PLATFORM, draft.id)
    await house.payouts.send(PLATFORM)
    await house.payouts.fail(PLATFORM, draft.id, "Their branch is closed")
    assert "`failed`; `pay` asks for one that is `sent`" in await why(file_of(paid(draft)))


async def sent_twice(house: House) -> Payout:
    payout = await sent(house)
    await house.payouts.fail(PLATFORM, payout.id, "Their branch is closed")
    await house.payouts.approve(PLATFORM, payout.id)
    await house.payouts.send(PLATFORM)
    return payout


async def test_a_payout_that_is_on_its_way_again_is_not_let_go_by_an_answer_to_the_first_time(
    house: House, answers: BankAnswers
) -> None:
    payout = await sent_twice(house)
    with pytest.raises(ValidationFailed) as refused:
        await answers.take(PLATFORM, file_of(returned(payout)))
    assert "more than once" in reasons(refused.value)["row 2"]
    assert await status(house, payout) == "sent"
    assert (await answers.take(PLATFORM, file_of(paid(payout)))).paid == [payout.id]
    with pytest.raises(ValidationFailed) as refused:  # its money has arrived: to let it go would pay it twice
        await answers.take(PLATFORM, file_of(returned(payout)))
    assert "more than once" in reasons(refused.value)["row 2"]
    assert await status(house, payout) == "paid"
    came_back = f"{payout.id},returned,70.00,SBIN126334000001,Account closed"
    assert (await answers.take(PLATFORM, file_of(came_back))).returned == [payout.id]  # this names which
    assert await status(house, payout) == "reversed"
    await house.check_sums()


async def test_one_file_that_says_paid_and_returned_of_a_payout_sent_twice_is_refused(
    house: House, answers: BankAnswers
) -> None:
    payout = await sent_twice(house)
    with pytest.raises(ValidationFailed) as refused:
        await answers.take(PLATFORM, file_of(paid(payout), returned(payout)))
    assert "more than once" in reasons(refused.value)["row 3"]
    assert await status(house, payout) == "sent"


async def test_a_file_of_empty_lines_without_end_is_refused_at_once(answers: BankAnswers) -> None:
    with pytest.raises(ValidationFailed, match="can't be read"):
        await answers.take(PLATFORM, HEADING.encode() + b"\n" * 1_000_000)


async def test_a_run_that_is_killed_before_its_end_leaves_nothing(
    house: House, answers: BankAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await two_sent(house)
    text = file_of(paid(one), paid(two, amount="7.00"))

    async def killed(*_: Any) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr("haat.settlement.bank_answers.post", killed)
        with pytest.raises(asyncio.CancelledError):
            await answers.take(PLATFORM, text)
    assert [await status(house, payout) for payout in (one, two)] == ["sent", "sent"]
    assert len((await answers.take(PLATFORM, text)).paid) == 2
    await house.check_sums()
    await house.check_rebuild()


async def test_only_the_operator_takes_answers(house: House, answers: BankAnswers) -> None:
    payout = await sent(house)
    with pytest.raises(PermissionDenied):
        await answers.take(partner(payout.org_id), file_of(paid(payout)))
