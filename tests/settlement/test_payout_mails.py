"""Providers are told by mail that a payout is made or came back, once each; of the operator's own steps they aren't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from haat.app import HANDLERS, Platform, build_platform
from haat.infra import events
from haat.infra.keyring import Keyring
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.settings import Settings
from haat.settlement import jobs
from haat.settlement.payout_model import Payout
from market import Market
from office import PostBox

from .counting_house import House


@pytest.fixture
def platform(database: Any, clock: SetClock, keyring: Keyring, tmp_path: Path) -> Platform:
    settings = Settings(data_dir=tmp_path, public_url="http://portal.example.in")
    made = build_platform(settings, database.app, database.service, keyring, clock, PostBox())
    made.identity._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    return made


async def drafted(house: House, platform: Platform) -> Payout:
    """Return a payout of ₹70.00 to a provider with a member who has an address."""
    market = Market(
        platform.db,
        house.clock,
        platform.keyring,
        platform.identity,
        platform.partners,
        platform.catalog,
        platform.discovery,
        platform.subscriptions,
    )
    await market.provider("bhasha")
    await house.bazaar.service("speak", "bhasha", price="1")
    await house.settled("100.00")
    (payout,) = (await house.payouts.draft_all(PLATFORM)).drafted
    return payout


async def mails_after(platform: Platform, payout: Payout) -> list[dict[str, Any]]:
    """Run what follows a payout's events, each twice as a job may, and return the mails, the same ones once."""
    box = platform.mail
    assert isinstance(box, PostBox)
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        history = await events.read_stream(connection, f"payout/{payout.id}")
    for event in history:
        for handler in jobs.HANDLERS:
            if event.type in handler.types:
                for _ in range(2):
                    await handler.run(platform, event)
    return list({mail["message_id"]: mail for mail in box.sent}.values())


def answer(payout: Payout, status: str, reason: str = "") -> bytes:
    return f"payout_id,status,amount,bank_reference,reason\n{payout.id},{status},70.00,UTR42,{reason}\n".encode()


async def test_a_payout_that_is_made_is_told_with_the_banks_reference(house: House, platform: Platform) -> None:
    payout = await drafted(house, platform)
    await house.payouts.approve(PLATFORM, payout.id)
    await house.payouts.send(PLATFORM)
    assert await mails_after(platform, payout) == []
    await platform.bank_answers.take(PLATFORM, answer(payout, "paid"))
    (mail,) = await mails_after(platform, payout)
    assert mail["subject"] == "Your payout of ₹70.00 is made"
    assert "₹70.00 went to SBIN0001234 …6789. The bank's reference is UTR42." in mail["text"]
    assert f"http://portal.example.in/partner/payouts/{payout.id}" in mail["text"]
    await platform.bank_answers.take(PLATFORM, answer(payout, "returned", "Account closed"))
    _, mail = await mails_after(platform, payout)
    assert "came back: Account closed" in mail["text"]


async def test_a_payout_that_the_bank_refused_is_told_once(house: House, platform: Platform) -> None:
    payout = await drafted(house, platform)
    await house.payouts.approve(PLATFORM, payout.id)
    await house.payouts.send(PLATFORM)
    await platform.bank_answers.take(PLATFORM, answer(payout, "returned", "Account closed"))
    (mail,) = await mails_after(platform, payout)
    assert mail["subject"] == "Your payout of ₹70.00 did not arrive" and "Account closed" in mail["text"]


async def test_a_draft_that_the_operator_takes_back_is_not_told(house: House, platform: Platform) -> None:
    payout = await drafted(house, platform)
    await house.payouts.reverse(PLATFORM, payout.id, "Something is held since")
    assert await mails_after(platform, payout) == []
    assert set(jobs.HANDLERS) <= set(HANDLERS), "the worker runs them"
