"""Mails that follow a registration: who gets which, and that a repeated job sends the same one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from haat.content.reading import Library
from haat.content.service import Content
from haat.invoices.papers import Papers
from haat.kernel.permissions import PLATFORM
from haat.language import ENGLISH, parse_tag
from haat.partners.jobs import HANDLERS, MAILS
from haat.settings import Settings
from market import Market


class Outbox:
    """A post box that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def send(self, **mail: Any) -> None:
        self.sent.append(mail)


async def _follow(market: Market, stream: str) -> list[dict[str, Any]]:
    """Run every handler on every event of a stream, as the jobs do."""
    outbox = Outbox()
    settings = SimpleNamespace(portal_address="http://portal.example.in")
    platform = SimpleNamespace(
        identity=market.identity,
        partners=market.partners,
        mail=outbox,
        settings=settings,
        library=Library(market.db, market.clock),
        papers=Papers(market.db, market.clock, Settings(), None),  # type: ignore[arg-type]  # only the language is asked for
    )
    for event in await market.events(stream):
        for handler in HANDLERS:
            if event.type in handler.types:
                await handler.run(platform, event)
    return outbox.sent


async def test_a_registration_is_confirmed_and_every_operator_is_told(market: Market) -> None:
    await market.operator()
    actor = await market.applicant("bhasha")
    mails = await _follow(market, f"partner/{actor.org_id}")
    assert {mail["to"] for mail in mails} == {"user1@example.in", "office@bhasha.example.in"}
    assert "/operator/partners" in next(mail["text"] for mail in mails if mail["to"] == "user1@example.in")


async def test_without_an_operator_only_the_partner_is_written_to(market: Market) -> None:
    actor = await market.applicant()
    assert [mail["to"] for mail in await _follow(market, f"partner/{actor.org_id}")] == ["office@bhasha.example.in"]


async def test_each_decision_is_mailed_with_its_reason(market: Market) -> None:
    actor, other = await market.applicant(), await market.applicant()
    assert actor.org_id and other.org_id
    await market.partners.approve(PLATFORM, actor.org_id)
    await market.partners.suspend(PLATFORM, actor.org_id, "Too many {errors}")
    await market.partners.reject(PLATFORM, other.org_id, "No GSTIN")
    _, approved, suspended = await _follow(market, f"partner/{actor.org_id}")
    assert "http://portal.example.in/partner" in approved["text"]
    assert "Too many {errors}" in suspended["text"]
    assert "No GSTIN" in (await _follow(market, f"partner/{other.org_id}"))[-1]["text"]


async def test_a_job_that_runs_twice_sends_the_same_message_id(market: Market) -> None:
    await market.operator()
    actor = await market.applicant()
    first, second = [await _follow(market, f"partner/{actor.org_id}") for _ in range(2)]
    assert [mail["message_id"] for mail in first] == [mail["message_id"] for mail in second]
    assert len({mail["message_id"] for mail in first}) == len(first) == 2


async def test_the_operators_own_words_are_sent_in_the_language_of_the_partners_papers(market: Market) -> None:
    operator, tag = await market.operator(), parse_tag("hi")
    content = Content(market.db, market.clock, market.identity, None, MAILS)  # type: ignore[arg-type]  # nothing is translated
    await content.create(operator, "partner.approved", "mail", ENGLISH)
    texts = ((ENGLISH, "Come in, {company}", "{portal}/partner"), (tag, "आइए, {company}", "{portal}/partner"))
    for language, subject, text in texts:
        await content.save(operator, "partner.approved", language, subject, text)
        await content.ask_review(operator, "partner.approved", language)
        await content.publish(operator, "partner.approved", language)
    actor = await market.applicant()
    assert actor.org_id
    await market.partners.approve(PLATFORM, actor.org_id)
    stream = f"partner/{actor.org_id}"
    assert (await _follow(market, stream))[-1]["subject"] == "Come in, Bhasha Labs"
    await Papers(market.db, market.clock, Settings(), None).choose_language(actor, "hi")  # type: ignore[arg-type]  # as above
    mail = (await _follow(market, stream))[-1]
    assert (mail["subject"], mail["text"]) == ("आइए, Bhasha Labs", "http://portal.example.in/partner\n")
    assert {one.name for one in MAILS} == {"partner.waiting", *(HANDLERS[1].types)}
