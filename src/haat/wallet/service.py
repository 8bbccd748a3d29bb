"""Use cases of wallets: money in, money out, what is left; and how organisations pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any
from uuid import UUID

from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.infra.projections import record
from haat.kernel.clock import Clock, check_ahead
from haat.kernel.errors import Conflict, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.money import PAISA, exact, total
from haat.kernel.pages import MAX_PAGE, Page, decode_id_cursor, page_of
from haat.kernel.permissions import PLATFORM, Actor, Permission
from haat.language.messages import _
from haat.ledger.model import Operation, account, moved
from haat.ledger.service import post
from haat.wallet import holds, leases, store
from haat.wallet.model import Grant, GrantKind, Mode, Part, burn, from_nano, lapsed, spendable
from haat.wallet.projection import WALLETS

MOST = Decimal("100000000.00")
"""The largest grant: ten crore rupees."""
PRIORITIES = range(0, 1001)
DEFAULT_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class Standing:
    """A wallet as it is now, in rupees.

    ``balance`` is what remains of all grants. Of it, ``unbilled`` is used by calls that are on no invoice yet,
    ``leased`` is with the gateways, and ``available`` can be had by new calls.
    """

    org_id: UUID
    mode: Mode
    subscriptions: dict[UUID, Mode]
    balance: Decimal
    unbilled: Decimal
    leased: Decimal
    available: Decimal
    grants: Sequence[Grant]


@dataclass(frozen=True, slots=True)
class Movement:
    """What came into a wallet (``paid``, ``free``) or left it (``invoice``, ``expiry``), and the balance after it."""

    id: UUID
    at: datetime
    kind: str
    amount: Decimal
    reference: str
    balance: Decimal


@dataclass(frozen=True, slots=True)
class Lease:
    """A part of a fund that is out: ``held`` rupees."""

    org_id: UUID
    fund: str
    gateway: str
    held: Decimal
    ended: bool
    expires_at: datetime


class Payer:
    """Pays invoices from wallets: the port that `haat.invoices` asks, with this platform's rate of tax."""

    def __init__(self, tax: Decimal) -> None:
        self._tax = tax

    async def filled(self, connection: Connection, orgs: Sequence[UUID]) -> set[UUID]:
        """Return which of these organisations have something left of their grants."""
        return await store.filled(connection, orgs)

    async def pay(self, connection: Connection, org: UUID, *, invoice: UUID, amount: Decimal, at: datetime) -> Decimal:
        """Draw what can be had, as `pay` does."""
        return await pay(connection, org, invoice=invoice, amount=amount, at=at, tax=self._tax)


async def pay(
    connection: Connection,
    org: UUID,
    *,
    invoice: UUID,
    amount: Decimal,
    at: datetime,
    tax: Decimal = holds.STANDARD_TAX,
) -> Decimal:
    """Draw what can be had of an amount from an organisation's wallet for an invoice; return it, in whole paise.

    Within the caller's transaction, which is to write the invoice's lines first: then what is used already and not on
    it stays held. What gateways have leased is not drawn either, but for what the wallet has held of this invoice: a
    lease may still count calls that are on it. What isn't due yet, of fees and minimums, gives way. Nothing is posted
    when the wallet has nothing.
    """
    if exact(amount) <= 0:
        return Decimal("0.00")
    await store.lock(connection, org)
    grants = await store.grants(connection, org)
    if not grants:
        return Decimal("0.00")
    taken = await holds.held(connection, org, at, tax)
    used = taken.used if await store.is_invoiced(connection, invoice) else Decimal(0)
    balance = total(grant.remaining for grant in grants)
    free = total((balance, -used, -taken.leased))
    covered = await holds.covered(connection, org, invoice, amount)
    drawn = min(amount, balance, max(free, covered)).quantize(PAISA, rounding=ROUND_DOWN)
    if drawn <= 0:
        return Decimal("0.00")
    reference = f"invoice/{invoice}"
    event = await record(
        connection,
        WALLETS,
        stream=f"wallet/{org}",
        type="wallet.paid",
        data={"reference": reference, "amount": str(drawn), "parts": _parts(burn(grants, drawn))},
        actor=PLATFORM.label,
        org=org,
        at=at,
    )
    entries = moved(account("wallet", org), account("receivable", org), drawn)
    await post(connection, [Operation(f"payment/{event.id}", "payment", at, entries, reference)])
    return drawn


class Wallets:
    """Wallets, for the operator; an organisation sees its own."""

    def __init__(self, db: Database, clock: Clock, tax: Decimal) -> None:
        self._db, self._clock, self._tax = db, clock, tax

    async def standing(self, actor: Actor, org: UUID | None = None) -> Standing:
        """Return a wallet: one's own, or for the operator any. One that nobody has put anything into is empty."""
        whose = _whose(actor, org)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if await store.zone_of(connection, whose) is None:
                raise NotFound(_("There is no such organisation."))
            await store.lock(connection, whose)  # so no invoice takes between two readings what the first one saw
            taken = await holds.held(connection, whose, now, self._tax)
            grants = await store.grants(connection, whose)
            mode, own = await store.modes(connection, whose)
        available = max(Decimal(0), spendable(grants, taken.total, now))
        balance = total(grant.remaining for grant in grants)
        return Standing(whose, mode, own, balance, taken.unbilled, taken.leased, available, grants)

    async def movements(
        self, actor: Actor, org: UUID | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Movement]:
        """Return the statement of a wallet, newest first."""
        whose = _whose(actor, org)
        limit = max(1, min(limit, MAX_PAGE))
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.movements(connection, whose, decode_id_cursor(cursor), limit + 1)
        return page_of([Movement(**row) for row in rows], limit, lambda movement: (movement.id,))

    async def top_up(self, actor: Actor, org: UUID, amount: Decimal, *, key: str, **terms: Any) -> Grant:
        """Take note of money that has arrived. The same key again returns the first grant; with other terms Conflict.

        ``terms``: ``priority`` (the lowest burns first), ``expires_at``, ``note``.
        """
        return await self._grant(actor, org, GrantKind.PAID, amount, key, **terms)

    async def credit(self, actor: Actor, org: UUID, amount: Decimal, *, key: str, **terms: Any) -> Grant:
        """Give credits for nothing, with the same terms as `top_up`."""
        return await self._grant(actor, org, GrantKind.FREE, amount, key, **terms)

    async def _grant(
        self,
        actor: Actor,
        org: UUID,
        kind: GrantKind,
        amount: Decimal,
        key: str,
        *,
        priority: int = DEFAULT_PRIORITY,
        expires_at: datetime | None = None,
        note: str = "",
    ) -> Grant:
        actor.require(Permission.INVOICES_RUN)
        now = self._clock.now()
        _check(amount, key, priority)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if await store.zone_of(connection, org) is None:
                raise NotFound(_("There is no such organisation."))
            await store.lock(connection, org)
            known = await store.grant_by_key(connection, org, key)
            if known is not None:
                if (known.kind, known.amount, known.priority, known.expires_at) != (kind, amount, priority, expires_at):
                    raise Conflict(_("This key was used for another grant: take a new one for each."))
                return known
            if expires_at is not None:
                expires_at = check_ahead(expires_at, now, "expires_at")
            identifier = new_id()
            await record(
                connection,
                WALLETS,
                stream=f"wallet/{org}",
                type="wallet.granted",
                data={
                    "grant": str(identifier),
                    "kind": kind.value,
                    "amount": str(amount.quantize(PAISA)),
                    "priority": priority,
                    "expires_at": expires_at.isoformat() if expires_at else None,
                    "key": key,
                    "note": note,
                },
                actor=actor.label,
                org=org,
                at=now,
            )
            name = "topup" if kind is GrantKind.PAID else "grant"
            source = "bank" if kind is GrantKind.PAID else "promotions"
            entries = moved(source, account("wallet", org), amount)
            await post(connection, [Operation(f"{name}/{identifier}", name, now, entries, f"wallet/{org}")])
        return Grant(identifier, org, kind, amount, amount, priority, now, expires_at, key, note)

    async def set_mode(self, actor: Actor, org: UUID, mode: Mode, subscription: UUID | None = None) -> None:
        """Say how an organisation pays from now on, or one subscription of it unlike the others."""
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            if await store.zone_of(connection, org) is None:
                raise NotFound(_("There is no such organisation."))
            if subscription is not None and not await store.has_subscription(connection, org, subscription):
                raise NotFound(_("The organisation has no such subscription."))
            await store.lock(connection, org)
            present, own = await store.modes(connection, org)
            if (own.get(subscription) if subscription else present) is mode:
                return
            await record(
                connection,
                WALLETS,
                stream=f"wallet/{org}",
                type="wallet.mode_set",
                data={"mode": mode.value, "subscription": str(subscription) if subscription else None},
                actor=actor.label,
                org=org,
                at=self._clock.now(),
            )

    async def expire(self) -> list[Grant]:
        """Take back what is left of grants whose time is over, but for what calls have used; return those grants."""
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            orgs = await store.over(connection, now)
        found: list[Grant] = []
        for org in orgs:
            async with self._db.transaction(PLATFORM_SCOPE) as connection:
                found += await self._expire(connection, org, now)
        return found

    async def _expire(self, connection: Connection, org: UUID, now: datetime) -> list[Grant]:
        await store.lock(connection, org)
        taken = await holds.held(connection, org, now, self._tax)
        parts = lapsed(await store.grants(connection, org), taken.total, now)
        operations = []
        for grant, rest in parts:
            event = await record(
                connection,
                WALLETS,
                stream=f"wallet/{org}",
                type="wallet.expired",
                data={"reference": f"grant/{grant.id}", "amount": str(rest), "parts": _parts([(grant, rest)])},
                actor=PLATFORM.label,
                org=org,
                at=now,
            )
            target = "revenue" if grant.kind is GrantKind.PAID else "promotions"
            entries = moved(account("wallet", org), target, rest)
            operations.append(Operation(f"expiry/{event.id}", "expiry", now, entries, f"wallet/{org}"))
        await post(connection, operations)
        return [grant for grant, _ in parts]

    # --- the gateways' leases ------------------------------------------------------------------

    async def leases(self, actor: Actor) -> list[Lease]:
        """Return what of all funds is with gateways, or was drawn for calls that are not in the usage store."""
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.all_leases(connection)
        return [
            Lease(row["org_id"], row["fund"], row["gateway"], from_nano(row["held"]), row["ended"], row["expires_at"])
            for row in rows
        ]

    async def forget_gateway(self, actor: Actor, gateway: str) -> int:
        """Take back the leases of a gateway that is gone for good with its journals; return how many there were.

        Its calls that are not in the usage store will be on no bill. Raise NotFound for one that has none.
        """
        actor.require(Permission.INVOICES_RUN)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            gone = await store.drop_leases(connection, gateway)
        if not gone:
            raise NotFound(_("No gateway of that name has a lease."))
        return gone

    async def sweep(self) -> int:
        """Forget leases that are done with."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await leases.sweep(connection, self._clock.now())


def _whose(actor: Actor, org: UUID | None) -> UUID:
    actor.require(Permission.INVOICES_READ)
    whose = org or actor.org_id
    if whose is None or (whose != actor.org_id and not actor.may(Permission.INVOICES_RUN)):
        raise NotFound
    return whose


def _check(amount: Decimal, key: str, priority: int) -> None:
    """Raise ValidationFailed for what can't be granted."""
    errors = []
    if not 0 < exact(amount) <= MOST or amount != amount.quantize(PAISA):
        errors.append(
            {"field": "amount", "message": _("Give rupees and whole paise, more than 0, at most %(most)s.", most=MOST)}
        )
    if not 1 <= len(key) <= 200 or not key.isascii() or not key.isprintable() or " " in key:
        errors.append({"field": "key", "message": _("Give 1 to 200 printable ASCII characters without spaces.")})
    if priority not in PRIORITIES:
        errors.append({"field": "priority", "message": _("Give a number from 0 (burns first) to 1000.")})
    if errors:
        raise ValidationFailed(errors=errors)


def _parts(parts: Sequence[Part]) -> list[dict[str, str]]:
    return [{"grant": str(grant.id), "amount": str(part)} for grant, part in parts]
