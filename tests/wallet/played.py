"""Gateways as the control plane knows them, and a wallet that they draw from."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID

from bazaar import Bazaar, Subscription
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.clock import SetClock
from haat.kernel.permissions import PLATFORM
from haat.usage import store as usage_store
from haat.wallet import leases
from haat.wallet.holds import WALLET
from haat.wallet.leases import Answer, Ask
from haat.wallet.model import Mode, from_nano
from haat.wallet.service import Wallets

TAX = Decimal("0.18")
CALL = 1_180_000_000
"""What a call costs with tax: a rupee and 18 paise."""


@dataclass
class Played:
    """A gateway as the control plane knows it: what it may draw, what it has drawn, where its journal is."""

    name: str
    db: Database
    clock: SetClock
    org: UUID
    fund: str = WALLET
    limit: int = 0
    taken: int = 0
    used: int = 0
    place: int = 0
    authorised: int = 0
    """What the control plane says that it may draw, whether it has heard of that or not."""
    calls: list[int] = field(default_factory=list)
    """What the calls have taken that are in its journal and not in the usage store."""

    @property
    def out(self) -> Decimal:
        """What of the fund may still become usage, in rupees: to be drawn, or drawn for calls that are not stored."""
        return from_nano(self.authorised - self.taken + sum(self.calls))

    async def ask(self, need: int = 0, want: int = 0, *, hears: bool = True) -> Answer:
        ask = Ask(self.org, self.fund, self.limit, self.taken, self.used, need, want)
        async with self.db.transaction(PLATFORM_SCOPE) as connection:
            [answer] = await leases.sync(
                connection, self.name, [ask], {self.name: (1, self.place)}, seconds=30, tax=TAX, at=self.clock.now()
            )
        self.authorised = answer.limit
        if hears:
            self.limit = answer.limit
        return answer

    def call(self, cost: int = CALL) -> bool:
        """Make a call and record it, if the lease covers it."""
        if self.taken + cost > self.limit:
            return False
        self.taken += cost
        self.used += cost
        self.place += 1
        self.calls.append(cost)
        return True

    def give_up(self) -> None:
        self.limit = self.taken

    async def ship(self, bazaar: Bazaar, subscription: Subscription) -> None:
        """Bring the journal to the usage store, as the shipper does it: rows and position together."""
        calls, self.calls = self.calls, []
        if calls:
            await bazaar.take([bazaar.event(subscription, "1") for _ in calls])
        async with self.db.transaction(PLATFORM_SCOPE) as connection:
            await usage_store.move(connection, self.name, 1, self.place, self.clock.now())


async def prepaid(bazaar: Bazaar, wallets: Wallets, rupees: str, slug: str = "speak") -> Subscription:
    org = await bazaar.organisation()
    subscription = await bazaar.subscribe(org, await bazaar.service(slug, unit="characters", price="1"))
    await wallets.set_mode(PLATFORM, org, Mode.PREPAID)
    await wallets.top_up(PLATFORM, org, Decimal(rupees), key="a")
    return subscription
