"""What an application demands for its calls, from the request to the row the gateway reads."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
import pytest
from pydantic import ValidationError

from haat.gateway.market import store as gateway_store
from haat.gateway.market.policy import ApplicationPolicy, Cors, DataPolicy
from haat.identity.policy import ApplicationPolicyDraft
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.errors import NotFound
from market import Market

WHOLE: dict[str, Any] = {
    "cors": {"origins": ["https://shop.example", "http://localhost:8080"], "credentials": True, "max_age": 60},
    "data": {"regions": ["IN", "SG-01"], "retains_inputs": False},
    "fallback": False,
}


async def test_a_policy_is_kept_recorded_and_read_by_the_gateway(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "Shop")
    assert application.policy == {}
    changed = await market.identity.set_application_policy(actor, application.id, ApplicationPolicyDraft(**WHOLE))
    assert changed.policy == WHOLE
    assert await market.identity.applications(actor) == [changed]
    event = (await market.events(f"application/{application.id}"))[-1]
    assert (event.type, event.data) == ("application.policy_changed", WHOLE)
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        entry = await gateway_store.application(connection, application.id)
    assert entry is not None
    assert entry.policy == ApplicationPolicy(
        cors=Cors(("https://shop.example", "http://localhost:8080"), True, 60),
        data=DataPolicy(("IN", "SG-01"), False),
        fallback=False,
    )


async def test_an_empty_policy_takes_the_gateways_entry_away(market: Market) -> None:
    actor = await market.consumer()
    application = await market.identity.create_application(actor, "Shop")
    await market.identity.set_application_policy(actor, application.id, ApplicationPolicyDraft(**WHOLE))
    cleared = await market.identity.set_application_policy(actor, application.id, ApplicationPolicyDraft())
    assert cleared.policy == {}
    async with market.db.transaction(PLATFORM_SCOPE) as connection:
        assert await gateway_store.application(connection, application.id) is None


async def test_only_the_applications_own_organisation_sets_its_policy(market: Market) -> None:
    actor, stranger = await market.consumer(), await market.consumer()
    application = await market.identity.create_application(actor, "Shop")
    for who, identifier in ((stranger, application.id), (actor, uuid4())):
        with pytest.raises(NotFound):
            await market.identity.set_application_policy(who, identifier, ApplicationPolicyDraft(**WHOLE))
    assert (await market.identity.application(actor, application.id)).policy == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"cors": {"origins": ["shop.example"]}},
        {"cors": {"origins": ["https://shop.example/"]}},
        {"cors": {"origins": ["https://user@shop.example"]}},
        {"cors": {"origins": ["*"], "credentials": True}},
        {"cors": {"origins": ["*"], "max_age": -1}},
        {"cors": {}},
        {"data": {"regions": ["India"]}},
        {"data": {"regions": ["in"]}},
        {"data": {"retains_inputs": "perhaps"}},
        {"fallback": None},
        {"region": "IN"},
    ],
)
def test_a_policy_that_nobody_could_keep_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ApplicationPolicyDraft.model_validate(wrong)


def test_the_gateway_reads_every_policy_that_can_be_written() -> None:
    content = ApplicationPolicyDraft.model_validate(WHOLE).model_dump(mode="json")
    kept = msgspec.json.encode(msgspec.convert(content, ApplicationPolicy))
    assert msgspec.json.decode(kept) == WHOLE
