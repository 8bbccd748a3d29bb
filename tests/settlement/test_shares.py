"""The split of a listing: changed from a time on, never before it."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from haat.kernel.errors import Conflict, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM

from .counting_house import MONTH, House, consumer, partner


async def test_calls_before_a_change_keep_the_split_they_were_made_under(house: House) -> None:
    sale = await house.sold("100.00")
    house.clock.advance(days=1)
    (version,) = await house.shares.change(PLATFORM, sale.service.id, Decimal("0.8"))
    assert (version.version, version.share, version.effective_from) == (2, Decimal("0.8"), house.clock.now())
    house.clock.advance(seconds=1)
    await house.bazaar.take([house.bazaar.event(sale, "100.00")])
    house.close_month()
    await house.invoices.issue_all(PLATFORM, MONTH)
    (done,) = await house.settlements.close_all(PLATFORM, MONTH)
    assert (done.gross, done.provider) == (Decimal(200), Decimal(150))
    assert {line["unit_price"] for line in await house.lines()} == {Decimal(1)}, "the price is the same"


async def test_a_change_may_be_announced_and_covers_the_cards_of_plans_too(house: House) -> None:
    service = await house.bazaar.service(price="1")
    await house.bazaar.card(service, price="2", plan="professional", free="5")
    start = house.clock.now() + timedelta(days=3)
    made = await house.shares.change(PLATFORM, service.id, Decimal("0.75"), start)
    assert {(one.plan, one.share, one.effective_from) for one in made} == {
        (None, Decimal("0.75"), start),
        ("professional", Decimal("0.75"), start),
    }
    cards = await house.bazaar.rows("SELECT * FROM rate_cards WHERE plan_code = 'professional' ORDER BY version")
    own = ("id", "version", "provider_share", "effective_from", "created_at")
    first, second = ({name: value for name, value in card.items() if name not in own} for card in cards)
    assert first == second, "a version differs in nothing but its share"
    assert len(await house.shares.of(partner(service.org), service.id)) == 4
    with pytest.raises(Conflict, match="begins at"):
        await house.shares.change(PLATFORM, service.id, Decimal("0.9"))


async def test_the_same_share_again_changes_nothing(house: House) -> None:
    service = await house.bazaar.service()
    house.clock.advance(seconds=1)
    assert await house.shares.change(PLATFORM, service.id, Decimal("0.70")) == []
    assert await house.bazaar.rows("SELECT id FROM events WHERE type = 'service.share_changed'") == []


async def test_the_past_and_what_is_no_share_are_refused(house: House) -> None:
    service = await house.bazaar.service()
    for share in ("1.1", "-0.1", "0.1234567"):
        with pytest.raises(ValidationFailed):
            await house.shares.change(PLATFORM, service.id, Decimal(share))
    with pytest.raises(ValidationFailed):
        await house.shares.change(PLATFORM, service.id, Decimal("0.8"), house.clock.now() - timedelta(seconds=1))
    with pytest.raises(NotFound):
        await house.shares.change(PLATFORM, new_id(), Decimal("0.8"))
    with pytest.raises(PermissionDenied):
        await house.shares.change(partner(service.org), service.id, Decimal("1"))
    for stranger in (partner(new_id()), consumer(service.org)):
        with pytest.raises((NotFound, PermissionDenied)):
            await house.shares.of(stranger, service.id)
