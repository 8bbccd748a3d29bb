"""The platform's own switches: asked for through OpenFeature, at hand without asking, and turned while it runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import pytest
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from haat.flags.draft import FlagDraft
from haat.flags.switchboard import PORTAL_TRIAL, PROVIDER_REGISTRATION, SIGN_UP, SWITCHES, context_of
from haat.kernel.errors import SwitchedOff
from haat.kernel.permissions import PLATFORM
from market import PASSWORD
from office import Control

SHUT = FlagDraft.parse({"default": "on", "enabled": False})


async def _until(true: Any) -> float:
    began = time.monotonic()
    while not await true():
        assert time.monotonic() - began < 5
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def test_a_switch_that_nobody_has_made_is_as_usual(control: Control) -> None:
    for switch in SWITCHES:
        assert await control.platform.switchboard.is_on(switch) is switch.usual


async def test_a_change_arrives_by_the_event_log_and_asking_costs_nothing(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, flags = control.platform.switchboard, control.platform.flags
    heard: list[EventDetails] = []
    board.client.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, heard.append)
    async with board.running():
        await _until(lambda: asyncio.sleep(0, board.followed.held is not None))
        await flags.put(PLATFORM, PORTAL_TRIAL.key, FlagDraft.parse({"default": "on"}))
        await flags.switch(PLATFORM, PORTAL_TRIAL.key, False)
        took = await _until(lambda: _is_off(control))
        assert took < 1, "a notification is not waited for a whole poll"

        async def no_reading() -> Any:
            raise AssertionError("a page asked the database for flags")

        held = board.followed.held
        monkeypatch.setattr(flags, "present", no_reading)
        board.followed._flags = flags
        assert held is not None and not await board.is_on(PORTAL_TRIAL)
        monkeypatch.undo()
    assert [PORTAL_TRIAL.key] in [one.flags_changed for one in heard]


async def _is_off(control: Control) -> bool:
    return not await control.platform.switchboard.is_on(PORTAL_TRIAL)


async def test_flags_stay_as_they_are_while_postgresql_is_gone(control: Control, database: Any) -> None:
    board = control.platform.switchboard
    await control.platform.flags.put(PLATFORM, PORTAL_TRIAL.key, SHUT)
    async with board.running():
        await _until(lambda: _is_off(control))
        async with await psycopg.AsyncConnection.connect(database.owner_dsn) as owner:
            await owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'haat-flags'"
            )
        assert not await board.is_on(PORTAL_TRIAL)
        await control.platform.flags.switch(PLATFORM, PORTAL_TRIAL.key, True)

        async def on_again() -> bool:
            return await board.is_on(PORTAL_TRIAL)

        await _until(on_again)


@pytest.mark.parametrize(
    ("ask", "default", "value", "error"),
    [
        ("boolean", True, True, ErrorCode.TYPE_MISMATCH),
        ("string", "x", "x", ErrorCode.TYPE_MISMATCH),
        ("object", {}, {}, ErrorCode.TYPE_MISMATCH),
        ("integer", 0, 3, None),
        ("float", 0.0, 3.0, None),
    ],
)
async def test_openfeatures_types_are_kept(
    control: Control, ask: str, default: Any, value: Any, error: ErrorCode | None
) -> None:
    draft = FlagDraft.parse({"kind": "number", "variants": {"three": 3}, "default": "three", "off": "three"})
    await control.platform.flags.put(PLATFORM, "most", draft)
    client = control.platform.switchboard.client
    details = await getattr(client, f"get_{ask}_details_async")("most", default, EvaluationContext("me"))
    assert (details.value, type(details.value), details.error_code) == (value, type(value), error)
    assert details.reason == (Reason.ERROR if error else Reason.STATIC)
    assert details.flag_metadata == ({} if error else {"version": 1})


async def test_the_methods_that_do_not_wait_say_when_the_flags_are_not_at_hand(control: Control) -> None:
    board = control.platform.switchboard
    await control.platform.flags.put(PLATFORM, "ready", FlagDraft.parse({"default": "on"}))
    details = board.client.get_boolean_details("ready", False)
    assert (details.value, details.error_code) == (False, ErrorCode.PROVIDER_NOT_READY)
    async with board.running():
        await _until(lambda: asyncio.sleep(0, board.followed.held is not None))
        assert board.client.get_boolean_details("ready", False).value is True


async def test_two_platforms_in_one_process_have_flags_of_their_own(control: Control) -> None:
    from haat.flags.switchboard import Switchboard

    class Nobody:
        async def present(self) -> dict[str, Any]:
            return {PORTAL_TRIAL.key: SHUT.flag(PORTAL_TRIAL.key)}

    other = Switchboard(control.platform.db, Nobody(), control.platform.settings)  # type: ignore[arg-type]
    assert await control.platform.switchboard.is_on(PORTAL_TRIAL)
    assert not await other.is_on(PORTAL_TRIAL)


async def test_what_rules_may_ask_is_no_name_and_no_address(control: Control) -> None:
    actor = await control.market.consumer()
    context = context_of(actor)
    assert context.targeting_key == str(actor.user_id)
    assert context.attributes == {"role": "api_consumer", "organisation": str(actor.org_id), "user": str(actor.user_id)}


async def test_sign_up_is_shut_by_its_switch(control: Control) -> None:
    await control.platform.flags.put(PLATFORM, SIGN_UP.key, SHUT)
    account = {"email": "a@example.in", "password": PASSWORD, "name": "A B", "organisation": "Acme"}
    refused = await control.ask("POST", "/accounts", account)
    assert (refused.status_code, refused.json()["code"], refused.json()["switch"]) == (403, "SWITCHED_OFF", "sign-up")
    await control.platform.flags.switch(PLATFORM, SIGN_UP.key, True)
    assert (await control.ask("POST", "/accounts", account)).status_code == 201


async def test_registration_is_shut_for_all_but_whom_an_override_lets_in(control: Control) -> None:
    board, flags = control.platform.switchboard, control.platform.flags
    known, stranger = [await control.market.consumer(kind="provider") for _ in range(2)]
    assert known.org_id
    await flags.put(PLATFORM, PROVIDER_REGISTRATION.key, FlagDraft())
    await flags.override(PLATFORM, PROVIDER_REGISTRATION.key, known.org_id, "on")
    await board.require(PROVIDER_REGISTRATION, known)
    with pytest.raises(SwitchedOff):
        await board.require(PROVIDER_REGISTRATION, stranger)
    registration = {"slug": "acme", "company_name": "Acme", "email": "a@example.in", "contact_person": "A B",
                    "business_type": "company"}  # fmt: skip
    assert (await control.ask("POST", "/partner", registration, actor=stranger)).status_code == 403
    assert (await control.ask("POST", "/partner", registration, actor=known)).status_code == 201
