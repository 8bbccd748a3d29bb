"""What providers and applications tell the gateway, over HTTP."""

from __future__ import annotations

from office import Control

POLICY = {"repeatable": True, "cache": {"ttl_seconds": 7200, "items": True, "headers": ["X-Model"]}}


async def test_a_provider_has_its_answers_kept_and_forgotten(control: Control) -> None:
    provider = await control.market.provider()
    listing = await control.market.listing(provider)
    answer = await control.ask("PUT", f"/services/{listing.id}/policy", POLICY, actor=provider)
    assert (answer.status_code, answer.json()["policy"]) == (200, POLICY)
    purged = await control.ask("POST", f"/services/{listing.id}/cache/purge", actor=provider)
    assert (purged.status_code, purged.json()) == (200, {"generation": 1})
    stranger = await control.market.consumer()
    assert (await control.ask("POST", f"/services/{listing.id}/cache/purge", actor=stranger)).status_code == 403
    assert (await control.ask("POST", f"/services/{listing.id}/cache/purge")).status_code == 401


async def test_an_application_says_where_its_data_may_go(control: Control) -> None:
    actor = await control.market.consumer()
    made = (await control.ask("POST", "/applications", {"name": "Shop"}, actor=actor)).json()
    policy = {"data": {"regions": ["IN"], "retains_inputs": False}}
    answer = await control.ask("PUT", f"/applications/{made['id']}/policy", policy, actor=actor)
    assert (answer.status_code, answer.json()["policy"]) == (200, policy)
    listed = (await control.ask("GET", "/applications", actor=actor)).json()
    assert [one["policy"] for one in listed] == [policy]
    wrong = await control.ask("PUT", f"/applications/{made['id']}/policy", {"data": {"region": "IN"}}, actor=actor)
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["field"] == "data.region"
