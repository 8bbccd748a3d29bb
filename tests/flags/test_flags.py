"""The operator's flags: written, switched, shared out, overridden, and remembered."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from haat.flags.draft import FlagDraft
from haat.flags.service import Flags
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, tenant
from haat.kernel.errors import ConcurrentChange, NotFound, PermissionDenied, ValidationFailed
from haat.kernel.permissions import PLATFORM
from office import Control

KEY = "new-search"


@pytest.fixture
def flags(control: Control) -> Flags:
    return control.platform.flags


async def test_each_change_is_an_event_that_holds_the_whole_flag(flags: Flags, control: Control) -> None:
    acme = await control.market.consumer()
    assert acme.org_id
    await flags.put(PLATFORM, KEY, FlagDraft(description="A better search"))
    await flags.set_percent(PLATFORM, KEY, 12.5)
    await flags.override(PLATFORM, KEY, acme.org_id, "on")
    await flags.switch(PLATFORM, KEY, False)
    await flags.switch(PLATFORM, KEY, False)
    await flags.override(PLATFORM, KEY, acme.org_id, None)
    found = await flags.get(PLATFORM, KEY)
    assert (found.version, found.enabled, found.overrides) == (5, False, {})
    history = await flags.history(PLATFORM, KEY)
    assert [one.type.removeprefix("flag.") for one in history] == [
        "override_removed", "switched_off", "override_set", "percentage_set", "created",
    ]  # fmt: skip
    assert history[1].data["overrides"] == {str(acme.org_id): "on"}
    assert history[1].data["rules"] == [{"variant": "on", "when": [], "percent": 12.5, "by": "targetingKey"}]
    assert history[2].data["org"] == str(acme.org_id)
    await flags.remove(PLATFORM, KEY)
    assert (await flags.history(PLATFORM, KEY))[0].type == "flag.removed"
    with pytest.raises(NotFound):
        await flags.get(PLATFORM, KEY)


async def test_a_percentage_grows_in_place_and_keeps_what_it_goes_by(flags: Flags) -> None:
    rules = [{"variant": "off", "when": [{"attribute": "plan", "in": ["free"]}], "percent": 5},
             {"variant": "on", "percent": 10, "by": "organisation"}]  # fmt: skip
    await flags.put(PLATFORM, KEY, FlagDraft.parse({"rules": rules}))
    found = await flags.set_percent(PLATFORM, KEY, 50)
    assert [(rule.buckets, rule.by) for rule in found.rules] == [(500, "targetingKey"), (5000, "organisation")]


@pytest.mark.parametrize("percent", [-1, 100.5, 0.001, float("nan"), float("inf")])
async def test_what_is_no_percentage_is_refused(flags: Flags, percent: float) -> None:
    await flags.put(PLATFORM, KEY, FlagDraft())
    with pytest.raises(ValidationFailed):
        await flags.set_percent(PLATFORM, KEY, percent)
    assert (await flags.get(PLATFORM, KEY)).version == 1


async def test_who_was_slower_is_told(flags: Flags) -> None:
    await flags.put(PLATFORM, KEY, FlagDraft(), version=0)
    for stale in (0, 2):
        with pytest.raises(ConcurrentChange):
            await flags.put(PLATFORM, KEY, FlagDraft(), version=stale)
    await flags.put(PLATFORM, KEY, FlagDraft(), version=1)


async def test_a_hundred_changes_at_once_are_made_one_after_another_or_refused(flags: Flags) -> None:
    await flags.put(PLATFORM, KEY, FlagDraft())
    done = await asyncio.gather(
        *(flags.set_percent(PLATFORM, KEY, share) for share in range(100)), return_exceptions=True
    )
    refused = [one for one in done if isinstance(one, BaseException)]
    assert all(isinstance(one, ConcurrentChange) for one in refused)
    found = await flags.get(PLATFORM, KEY)
    assert found.version == 1 + 100 - len(refused) > 1
    assert len(await flags.history(PLATFORM, KEY)) == found.version


async def test_a_flag_made_twice_at_once_is_made_once(flags: Flags) -> None:
    done = await asyncio.gather(*(flags.put(PLATFORM, KEY, FlagDraft()) for _ in range(10)), return_exceptions=True)
    assert all(not isinstance(one, BaseException) or isinstance(one, ConcurrentChange) for one in done)
    assert len(await flags.history(PLATFORM, KEY)) == (await flags.get(PLATFORM, KEY)).version


async def test_an_override_is_of_a_variant_and_an_organisation_that_exist(flags: Flags, control: Control) -> None:
    acme = await control.market.consumer()
    assert acme.org_id
    await flags.put(PLATFORM, KEY, FlagDraft())
    with pytest.raises(NotFound):
        await flags.override(PLATFORM, KEY, uuid4(), "on")
    with pytest.raises(NotFound):
        await flags.override(PLATFORM, KEY, acme.org_id, None)
    with pytest.raises(NotFound):
        await flags.override(PLATFORM, "other", acme.org_id, "on")
    with pytest.raises(ValidationFailed):
        await flags.override(PLATFORM, KEY, acme.org_id, "maybe")
    await flags.override(PLATFORM, KEY, acme.org_id, "on")
    with pytest.raises(ValidationFailed, match="Correct"):
        await flags.put(PLATFORM, KEY, FlagDraft.parse({"variants": {"off": False, "yes": True}}))


async def test_flags_are_the_operators_alone(flags: Flags, control: Control) -> None:
    actor = await control.market.provider()
    for asked in (
        flags.directory(actor),
        flags.get(actor, KEY),
        flags.put(actor, KEY, FlagDraft()),
        flags.switch(actor, KEY, False),
        flags.set_percent(actor, KEY, 5),
        flags.override(actor, KEY, uuid4(), "on"),
        flags.remove(actor, KEY),
        flags.history(actor, KEY),
    ):
        with pytest.raises(PermissionDenied):
            await asked


async def test_an_organisation_sees_its_own_override_alone(flags: Flags, control: Control) -> None:
    acme, other = await control.market.consumer(), await control.market.consumer()
    assert acme.org_id and other.org_id
    await flags.put(PLATFORM, KEY, FlagDraft())
    await flags.override(PLATFORM, KEY, acme.org_id, "on")
    seen = []
    for scope in (PUBLIC, tenant(other.org_id), tenant(acme.org_id), PLATFORM_SCOPE):
        async with control.platform.db.transaction(scope) as connection:
            rows = await (await connection.execute("SELECT org_id FROM flag_overrides")).fetchall()
        seen.append(len(rows))
    assert seen == [0, 0, 1, 1]


async def test_the_api_says_what_the_service_does(control: Control) -> None:
    operator, acme = await control.market.operator(), await control.market.consumer()
    flag = {"description": "A better search", "exposed": True, "rules": [{"variant": "on", "percent": 5}]}
    made = await control.ask("PUT", f"/flags/{KEY}?version=0", flag, actor=operator)
    assert (made.status_code, made.json()["version"]) == (200, 1)
    assert made.json()["flag"]["rules"] == [{"variant": "on", "when": [], "percent": 5.0, "by": "targetingKey"}]
    assert (await control.ask("PUT", f"/flags/{KEY}?version=0", flag, actor=operator)).status_code == 409
    await control.ask("PUT", f"/flags/{KEY}/percent", {"percent": 25}, actor=operator)
    await control.ask("PUT", f"/flags/{KEY}/overrides/{acme.org_id}", {"variant": "on"}, actor=operator)
    off = await control.ask("PUT", f"/flags/{KEY}/enabled", {"enabled": False}, actor=operator)
    assert off.json()["flag"]["enabled"] is False and off.json()["overrides"] == {str(acme.org_id): "on"}
    [listed] = (await control.ask("GET", "/flags", actor=operator)).json()
    assert listed == (await control.ask("GET", f"/flags/{KEY}", actor=operator)).json() == off.json()
    sent_back = await control.ask("PUT", f"/flags/{KEY}", listed["flag"], actor=operator)
    assert sent_back.json()["flag"] == listed["flag"]
    history = (await control.ask("GET", f"/flags/{KEY}/history", actor=operator)).json()
    assert [one["version"] for one in history] == [5, 4, 3, 2, 1]
    await control.ask("DELETE", f"/flags/{KEY}/overrides/{acme.org_id}", actor=operator)
    assert (await control.ask("DELETE", f"/flags/{KEY}", actor=operator)).status_code == 204
    assert (await control.ask("GET", f"/flags/{KEY}", actor=operator)).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/flags/UPPER", {}, "key"),
        ("/flags/new", {"kind": "boolean", "variants": {"on": "yes"}}, ""),
        ("/flags/new", {"rules": [{"variant": "on", "percent": 1000}]}, "rules.0.percent"),
        ("/flags/new", {"variants": {"on": True, "off\0": False}}, "variants"),
        ("/flags/new/percent", {"percent": "much"}, "percent"),
        ("/flags/new/enabled", {"enabled": "perhaps"}, "enabled"),
        ("/flags/new/overrides/me", {"variant": "on"}, "org_id"),
    ],
)
async def test_the_api_names_what_is_wrong(control: Control, path: str, body: object, field: str) -> None:
    answer = await control.ask("PUT", path, body, actor=await control.market.operator())
    assert answer.status_code == 422, answer.text
    assert field in answer.json()["errors"][0]["field"]
