"""The operator's flags: what is on for whom, the switch, the percentage, and what has changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from babel.lists import format_list
from fastapi import APIRouter
from starlette.responses import Response

from haat.flags.draft import FlagDraft, written
from haat.flags.model import Condition, Flag, Rule
from haat.flags.switchboard import SWITCHES
from haat.kernel.errors import HaatError, NotFound, ValidationFailed
from haat.kernel.permissions import Actor, Permission
from haat.language.formats import date_locale
from haat.language.messages import _, _n, spoken
from haat.portal import formats
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
    known = await visit.platform.identity.names(map(UUID, flag.overrides))
    names = {org: known.get(UUID(org), org) for org in flag.overrides}
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
        raise ValidationFailed(errors=[{"field": "percent", "message": _("Enter a number from 0 to 100.")}]) from error


def _definition(visit: Visit) -> FlagDraft:
    try:
        value = json.loads(visit.text("definition"))
    except (ValueError, RecursionError) as error:
        raise ValidationFailed(errors=[{"field": "definition", "message": _("This is not JSON.")}]) from error
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
        message = _("Enter the organisation's id.")
        raise ValidationFailed(errors=[{"field": "organisation", "message": message}]) from error


def present_percent(flag: Flag) -> str:
    """Return to how many of everybody a flag is given, empty when it is not divided so."""
    found = next((rule.buckets for rule in flag.rules if not rule.when and rule.buckets is not None), None)
    return "" if found is None else f"{found / 100:g}"


def sentences(flag: Flag) -> list[str]:
    """Return what a flag does, in the order in which it is decided."""
    if not flag.enabled:
        return [_("Everybody gets %(variant)s.", variant=_told(flag, flag.off))]
    said = []
    if many := len(flag.overrides):
        said.append(
            _n(
                "%(amount)s organisation has a variant of its own.",
                "%(amount)s organisations have their own.",
                many,
                amount=formats.number(many),
            )
        )
    said += [_ruled(flag, rule) for rule in flag.rules]
    rest = _told(flag, flag.default)
    if said:
        said.append(_("Everybody else gets %(variant)s.", variant=rest))
    else:
        said.append(_("Everybody gets %(variant)s.", variant=rest))
    return said


def _ruled(flag: Flag, rule: Rule) -> str:
    variant = _told(flag, rule.variant)
    if rule.buckets is None:
        if not rule.when:
            return _("All get %(variant)s.", variant=variant)
        return _("Where %(conditions)s, all get %(variant)s.", conditions=_asked(rule.when), variant=variant)
    share = f"{formats.number(rule.buckets / 100)}{formats.NO_BREAK}%"
    if not rule.when:
        return _("%(share)s get %(variant)s.", share=share, variant=variant)
    return _(
        "Where %(conditions)s, %(share)s get %(variant)s.",
        conditions=_asked(rule.when),
        share=share,
        variant=variant,
    )


def _asked(conditions: Sequence[Condition]) -> str:
    asked = []
    for one in conditions:
        values = ", ".join(sorted(one.values)[:5]) + (", …" if len(one.values) > 5 else "")
        if one.negated:
            asked.append(_("%(attribute)s is none of %(values)s", attribute=one.attribute, values=values))
        else:
            asked.append(_("%(attribute)s is one of %(values)s", attribute=one.attribute, values=values))
    return format_list(asked, locale=date_locale(spoken()))


def _told(flag: Flag, variant: str) -> str:
    if flag.kind == "boolean":
        return variant
    text = json.dumps(flag.variants.get(variant), ensure_ascii=False)
    return f"{variant} ({text if len(text) <= 40 else text[:40] + '…'})"
