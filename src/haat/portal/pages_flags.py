"""The operator's flags: what is on for whom, the switch, the percentage, and what has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from haat.flags.draft import FlagDraft, written
from haat.flags.model import Condition, Flag
from haat.flags.switchboard import SWITCHES
from haat.kernel.errors import HaatError, NotFound, ValidationFailed
from haat.kernel.permissions import Actor, Permission
from haat.portal.visit import Fields, Visit, VisitOf, messages

router = APIRouter(prefix="/operator/flags")

_HISTORY = 50
"""Changes shown; the API has them all."""


def _operator(visit: Visit) -> Actor:
    actor = visit.require_actor()
    actor.require(Permission.FLAGS_EDIT)
    return actor


async def _list_page(visit: Visit, status: int = 200, errors: Fields | None = None) -> Response:
    flags = await visit.platform.flags.directory(_operator(visit))
    known = {flag.key for flag in flags}
    return visit.render(
        "flags.html",
        status,
        flags=[(flag, sentences(flag)) for flag in flags],
        unmade=[switch for switch in SWITCHES if switch.key not in known],
        elsewhere=visit.platform.settings.flags_url,
        typed=visit.typed,
        errors=errors or Fields(),
    )


async def _flag_page(visit: Visit, key: str, status: int = 200, errors: Fields | None = None) -> Response:
    actor = _operator(visit)
    flag = await visit.platform.flags.get(actor, key)
    names = {org: (await visit.platform.identity.organisation(UUID(org))).name for org in flag.overrides}
    return visit.render(
        "flag.html",
        status,
        flag=flag,
        sentences=sentences(flag),
        names=names,
        percent=present_percent(flag),
        definition=visit.typed["definition"] or json.dumps(written(flag).plain(), indent=2, ensure_ascii=False),
        history=(await visit.platform.flags.history(actor, key))[:_HISTORY],
        typed=visit.typed,
        errors=errors or Fields(),
    )


@router.get("")
async def list_flags(visit: VisitOf) -> Response:
    return await _list_page(visit)


@router.post("")
async def make(visit: VisitOf) -> Response:
    """Make a flag that is on or off; the rest is written on its own page."""
    actor, key = _operator(visit), visit.text("key")
    try:
        default = "on" if visit.text("default") == "on" else "off"
        draft = FlagDraft.parse({"default": default, "description": visit.text("description")})
        await visit.platform.flags.put(actor, key, draft, version=0)
    except HaatError as error:
        return await _list_page(visit, error.status, messages(error))
    return visit.redirect(f"/operator/flags/{key}", done="flag")


@router.get("/{key}")
async def show(visit: VisitOf, key: str) -> Response:
    return await _flag_page(visit, key)


@router.post("/{key}/{change}")
async def change(visit: VisitOf, key: str, change: str) -> Response:
    """Switch, share out, rewrite, override or remove a flag: the service records who did it."""
    actor, flags = _operator(visit), visit.platform.flags
    back = "/operator/flags" if visit.text("back") == "list" else f"/operator/flags/{key}"
    try:
        if change in ("on", "off"):
            await flags.switch(actor, key, change == "on")
        elif change == "percent":
            await flags.set_percent(actor, key, _percent(visit.text("percent")), visit.text("variant") or None)
        elif change == "definition":
            await flags.put(actor, key, _definition(visit), version=_version(visit))
        elif change == "override":
            await flags.override(actor, key, _organisation(visit), visit.text("variant") or None)
        elif change == "remove":
            await flags.remove(actor, key)
            return visit.redirect("/operator/flags", done="flag-removed")
        else:
            raise NotFound
    except NotFound as error:
        if change != "override":
            raise
        return await _flag_page(visit, key, 422, Fields(organisation=error.detail))
    except HaatError as error:
        return await _flag_page(visit, key, error.status, messages(error))
    return visit.redirect(back, done="flag")


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%"))
    except ValueError as error:
        raise ValidationFailed(errors=[{"field": "percent", "message": "Enter a number from 0 to 100."}]) from error


def _definition(visit: Visit) -> FlagDraft:
    try:
        value = json.loads(visit.text("definition"))
    except (ValueError, RecursionError) as error:
        raise ValidationFailed(errors=[{"field": "definition", "message": "This is not JSON."}]) from error
    try:
        return FlagDraft.parse(value)
    except ValidationFailed as error:
        first = error.extensions["errors"][0]
        message = f"{first['field']}: {first['message']}"
        raise ValidationFailed(errors=[{"field": "definition", "message": message}]) from error


def _version(visit: Visit) -> int | None:
    text = visit.text("version")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _organisation(visit: Visit) -> UUID:
    try:
        return UUID(visit.text("organisation"))
    except ValueError as error:
        message = "Enter the organisation's id."
        raise ValidationFailed(errors=[{"field": "organisation", "message": message}]) from error


def present_percent(flag: Flag) -> str:
    """Return to how many of everybody a flag is given, empty when it is not divided so."""
    found = next((rule.buckets for rule in flag.rules if not rule.when and rule.buckets is not None), None)
    return "" if found is None else f"{found / 100:g}"


def sentences(flag: Flag) -> list[str]:
    """Return what a flag does, in the order in which it is decided."""
    if not flag.enabled:
        return [f"Everybody gets {_told(flag, flag.off)}."]
    said = []
    if flag.overrides:
        many = len(flag.overrides)
        said.append(
            "1 organisation has a variant of its own." if many == 1 else f"{many} organisations have their own."
        )
    for rule in flag.rules:
        whom = " and ".join(_asked(condition) for condition in rule.when)
        share = "" if rule.buckets is None else f"{rule.buckets / 100:g}\xa0% "
        start = f"Where {whom}, {share or 'all '}get" if whom else f"{share or 'All '}get"
        said.append(f"{start} {_told(flag, rule.variant)}.")
    said.append(f"{'Everybody else gets' if said else 'Everybody gets'} {_told(flag, flag.default)}.")
    return said


def _asked(condition: Condition) -> str:
    values = ", ".join(sorted(condition.values)[:5]) + (", …" if len(condition.values) > 5 else "")
    return f"{condition.attribute} is {'none' if condition.negated else 'one'} of {values}"


def _told(flag: Flag, variant: str) -> str:
    value: Mapping[str, Any] | Any = flag.variants.get(variant)
    if flag.kind == "boolean":
        return variant
    text = json.dumps(value, ensure_ascii=False)
    return f"{variant} ({text if len(text) <= 40 else text[:40] + '…'})"
