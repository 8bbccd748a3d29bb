"""Rollouts and experiments over HTTP: answers, refusals, and a version accepted beside the default one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from gateway.rig import Provider
from haat.catalog import store as catalog_store
from haat.catalog.drafts import VersionDraft
from haat.infra.postgres import PLATFORM_SCOPE
from haat.kernel.permissions import Actor, Role
from office import Control, control

__all__ = ["control"]


async def shop(control: Control) -> tuple[dict[Role, Actor], UUID]:
    people = await control.cast()
    provider = people[Role.PARTNER_ADMIN]
    listing = await control.market.listing(provider)
    draft = VersionDraft.model_validate(
        {"version": "2", "endpoint": "http://8.8.8.8", "sample": {"body": {}}, "languages": ["hi-Deva"]}
    )
    version = await control.platform.catalog.versions.add(provider, listing.id, draft)
    async with control.platform.db.transaction(PLATFORM_SCOPE) as connection:
        await catalog_store.accept_version(connection, listing.id, version, control.platform.clock.now(), default=False)
    return people, listing.id


async def test_a_rollout_over_http(control: Control) -> None:
    people, service = await shop(control)
    developer = people[Role.PARTNER_DEVELOPER]
    made = await control.ask("POST", f"/services/{service}/rollouts", {"candidate": "2", "percent": 5}, actor=developer)
    assert (made.status_code, made.json()["percent"], made.json()["status"]) == (201, "5", "running")
    rollout = made.json()["id"]
    listed = await control.ask("GET", f"/services/{service}/rollouts", actor=developer)
    assert [one["id"] for one in listed.json()] == [rollout]
    moved = await control.ask("PUT", f"/rollouts/{rollout}/percent", {"percent": 50}, actor=developer)
    assert moved.json()["percent"] == "50"
    for word, status in (("pause", "paused"), ("resume", "running"), ("promote", "promoted")):
        answer = await control.ask("POST", f"/rollouts/{rollout}/{word}", actor=developer)
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    shown = await control.ask("GET", f"/rollouts/{rollout}", actor=people[Role.PLATFORM_ADMIN])
    assert [one["variant"] for one in shown.json()["variants"]] == ["control", "candidate"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"candidate": "9"}, "candidate"),
        ({"candidate": "2", "percent": 101}, "percent"),
        ({"candidate": "2", "percent": 0.001}, "percent"),
        ({"candidate": "2", "steps": [{"percent": 5, "minutes": 0}]}, "steps.0.minutes"),
        ({"candidate": "2", "rule": {"min_calls": 0}}, "rule.min_calls"),
        ({"candidate": "2", "colour": "blue"}, "colour"),
        ({"candidate": ["2"]}, "candidate"),
        ({}, "candidate"),
    ],
)
async def test_bad_input_is_named_by_its_field(control: Control, body: dict[str, Any], field: str) -> None:
    people, service = await shop(control)
    answer = await control.ask("POST", f"/services/{service}/rollouts", body, actor=people[Role.PARTNER_ADMIN])
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_who_may_not_and_what_is_not_there(control: Control) -> None:
    people, service = await shop(control)
    consumer = people[Role.API_CONSUMER]
    body = {"candidate": "2"}
    assert (await control.ask("POST", f"/services/{service}/rollouts", body)).status_code == 401
    assert (await control.ask("POST", f"/services/{service}/rollouts", body, actor=consumer)).status_code == 403
    admin = people[Role.PARTNER_ADMIN]
    for method, path in (
        ("GET", f"/rollouts/{uuid4()}"),
        ("POST", f"/rollouts/{uuid4()}/promote"),
        ("GET", f"/experiments/{uuid4()}"),
        ("GET", f"/services/{uuid4()}/rollouts"),
    ):
        assert (await control.ask(method, path, actor=admin)).status_code == 404


async def test_an_experiment_over_http(control: Control) -> None:
    people, service = await shop(control)
    admin = people[Role.PARTNER_ADMIN]
    body = {
        "name": "As reliable?",
        "metric": "success_rate",
        "minimum_effect": 0.01,
        "variants": [{"name": "new", "version": "2", "percent": 50}],
        "ends_at": (control.platform.clock.now() + timedelta(days=1)).isoformat(),
    }
    made = await control.ask("POST", f"/services/{service}/experiments", body, actor=admin)
    assert (made.status_code, made.json()["status"]) == (201, "registered")
    experiment = made.json()["id"]
    shown = (await control.ask("GET", f"/experiments/{experiment}", actor=admin)).json()
    assert (shown["alpha"], [one["name"] for one in shown["variants"]]) == (0.05, ["control", "new"])
    assert (shown["ratio_is_wrong"], shown["variants"][1]["p_value"]) == (False, 1.0)
    withdrawn = await control.ask("POST", f"/experiments/{experiment}/withdraw", actor=admin)
    assert withdrawn.json()["status"] == "withdrawn"
    refused = await control.ask("POST", f"/services/{service}/experiments", {**body, "metric": "beauty"}, actor=admin)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "metric")


async def test_a_version_is_accepted_beside_the_default_one_when_asked_or_while_calls_are_divided(
    control: Control,
) -> None:
    people, service = await shop(control)
    admin, server = people[Role.PARTNER_ADMIN], await Provider().start()

    async def accepted(version: str, query: str = "") -> bool:
        """Add a version, have it accepted for real, and tell whether it became the default one."""
        sample = {"path": "/invoke", "body": {}}
        body = {"version": version, "endpoint": f"http://127.0.0.1:{server.port}", "dialect": "http", "sample": sample}
        added = await control.ask("POST", f"/services/{service}/versions", body, actor=admin)
        identifier = added.json()["version_id"]
        answer = await control.ask("POST", f"/services/{service}/versions/{identifier}/accept{query}", actor=admin)
        assert answer.status_code == 200, answer.text
        async with control.platform.db.transaction(PLATFORM_SCOPE) as connection:
            versions = await catalog_store.versions(connection, service)
        found = next(one for one in versions if one.version == version)
        assert found.accepted_at is not None
        return found.is_default

    try:
        assert not await accepted("3", "?default=false")
        rollout = await control.ask("POST", f"/services/{service}/rollouts", {"candidate": "2"}, actor=admin)
        assert rollout.status_code == 201, rollout.text
        assert not await accepted("4")
        await control.ask("POST", f"/rollouts/{rollout.json()['id']}/rollback", {}, actor=admin)
        assert await accepted("5")
    finally:
        await server.stop()
