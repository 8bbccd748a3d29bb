"""Mails about one's account: to whom, in which language, with a link that opens what it says."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

from haat.content.reading import Library
from haat.identity.jobs import HANDLERS, INVITATION
from haat.infra.postgres import PLATFORM_SCOPE
from haat.language import ENGLISH, parse_tag
from haat.language.messages import gettext, speaking, spoken
from market import PASSWORD, Market

from .conftest import People


class Outbox:
    """A post box that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def send(self, **mail: Any) -> None:
        self.sent.append(mail)


async def _follow(market: Market, people: People, stream: str) -> list[dict[str, Any]]:
    """Run every handler on every event of a stream, as the jobs do."""
    outbox = Outbox()
    settings = SimpleNamespace(portal_address="http://portal.example.in")
    platform = SimpleNamespace(
        members=people.members,
        access=people.access,
        mail=outbox,
        settings=settings,
        library=Library(market.db, market.clock),
    )
    for event in await market.events(stream):
        for handler in HANDLERS:
            if event.type in handler.types:
                await handler.run(platform, event)
    assert spoken() == ENGLISH
    return outbox.sent


async def test_an_invitation_brings_its_newest_link_to_whom_it_invites(market: Market, people: People) -> None:
    host = await market.consumer(name="Asha", organisation="Asha's")
    invitation = await people.members.invite(host, "ravi@example.in", "api_consumer")
    stream = f"invitation/{invitation.id}"
    [mail] = await _follow(market, people, stream)
    assert mail["to"] == "ravi@example.in" and "Asha invites you to work with Asha's" in mail["text"]
    assert f"http://portal.example.in/invitation/{people.members.token_of(invitation)}" in mail["text"]
    fresh = await people.members.resend(host, invitation.id)
    [mail] = await _follow(market, people, stream)  # a job of the first mail that runs late sends nothing
    assert people.members.token_of(fresh) in mail["text"]
    await people.members.revoke(host, invitation.id)
    assert await _follow(market, people, stream) == []


async def test_an_accepted_invitation_is_not_mailed_again(market: Market, people: People) -> None:
    host = await market.consumer()
    invitation = await people.members.invite(host, "ravi@example.in", "api_consumer")
    await people.members.accept(people.members.token_of(invitation), PASSWORD, "Ravi")
    assert await _follow(market, people, f"invitation/{invitation.id}") == []


async def test_a_reset_is_mailed_to_who_has_an_account_and_a_changed_password_is_told(
    market: Market, people: People
) -> None:
    actor = await market.consumer(email="asha@example.in")
    mails = {}
    for email in ("asha@example.in", "nobody@example.in"):
        await people.access.ask_reset(email)
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        rows = await (await connection.execute("SELECT id, email FROM password_resets")).fetchall()
    for row in rows:
        mails[row["email"]] = await _follow(market, people, f"password-reset/{row['id']}")
    assert mails["nobody@example.in"] == []
    [mail] = mails["asha@example.in"]
    found = re.search(r"http://portal\.example\.in/reset/(\S+)", mail["text"])
    assert mail["to"] == "asha@example.in" and found is not None
    await people.access.reset_password(found[1], "a newer and longer password")
    [told] = await _follow(market, people, f"user/{actor.user_id}")
    assert told["to"] == "asha@example.in" and "/forgot" in told["text"]


async def test_a_person_is_written_to_in_the_language_of_the_account(market: Market, people: People) -> None:
    organisation = "आशा ऐप्स"

    def said_in(language: str) -> str:
        with speaking(parse_tag(language)):
            subject = gettext(INVITATION.subject)
        assert subject != INVITATION.subject
        return subject.replace("{organisation}", organisation)

    host, guest = await market.consumer(organisation=organisation), await market.consumer(email="asha@example.in")
    await people.access.change_profile(host, language="ta-Taml")
    [newcomer, known] = [
        await people.members.invite(host, email, "api_consumer") for email in ("ravi@example.in", "asha@example.in")
    ]
    for invitation, language in ((newcomer, "ta-Taml"), (known, "ta-Taml")):
        [mail] = await _follow(market, people, f"invitation/{invitation.id}")
        assert mail["subject"] == said_in(language) and INVITATION.text[-20:] not in mail["text"]
    await people.access.change_profile(guest, language="hi-Deva")
    [mail] = await _follow(market, people, f"invitation/{known.id}")
    assert mail["subject"] == said_in("hi-Deva")
