"""The market these tests work on, and its people."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import pytest

from haat.identity.access import Access
from haat.identity.members import Members
from haat.identity.model import Session
from haat.kernel.permissions import Actor
from market import PASSWORD, Market, market

__all__ = ["market"]


@dataclass
class People:
    """The services of people, and short ways to fill an organisation."""

    market: Market
    members: Members
    access: Access

    async def newcomer(self, host: Actor, email: str, role: str = "api_consumer", name: str = "Ravi") -> Actor:
        """Return somebody without an account before, who was invited and has joined."""
        return (await self.joined(host, email, role, name)).actor

    async def joined(self, host: Actor, email: str, role: str = "api_consumer", name: str = "Ravi") -> Session:
        """Return the session with which somebody joins."""
        invitation = await self.members.invite(host, email, role)
        return await self.members.accept(self.members.token_of(invitation), PASSWORD, name)

    async def colleague(self, host: Actor, guest: Actor, role: str = "api_consumer") -> Actor:
        """Return somebody who has an account, as a member of the host's organisation."""
        assert guest.user_id
        email = (await self.access.user(guest.user_id)).email
        invitation = await self.members.invite(host, email, role)
        return (await self.members.join(guest, self.members.token_of(invitation))).actor

    async def who(self, actor: Actor) -> list[UUID]:
        return [one.user_id for one in await self.members.of(actor)]


@pytest.fixture
def people(market: Market) -> People:
    shared = (market.db, market.clock, market.keyring, market.identity)
    return People(market, Members(*shared), Access(*shared))
