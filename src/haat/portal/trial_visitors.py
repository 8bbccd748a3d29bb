"""Calls of visitors without an account: which services take them, how many, and who pays.

They are real calls with a key of the operator's own application, so they are metered like any other and the operator
pays for them. What is typed or recorded goes to the provider and is kept nowhere: services that keep inputs or train
on them take no such calls, and the gateway's cache has no part in them.

A service's calls of the day are counted from its usage when a process first asks, so that a restart gives nobody more.
Those of a network address are counted in this process's memory alone: they are forgotten when it restarts, and the
service's number still holds. An address that is not public is this machine or a proxy that many stand behind; it is
not counted, and the proxy has to limit by address itself (as in `haat.identity.throttle`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from haat.app import Platform
from haat.catalog.model import Listing, Version
from haat.flags.switchboard import PORTAL_TRIAL
from haat.infra.net import hosted_networks
from haat.kernel.clock import Period, day_of
from haat.kernel.errors import AlreadyExists, RateLimited, SwitchedOff, ValidationFailed
from haat.kernel.permissions import Actor, Role
from haat.language.messages import _
from haat.portal import formats
from haat.portal.trial import TrialKey, Trials, controls_of
from haat.portal.visit import Visit
from haat.usage.model import CallFilter

APPLICATION = "Visitors of the portal"
PLAN = "professional"
"""The platform's plan that these subscriptions stand on: its limits lie above a day's calls."""
MOST_TEXT = 2000
MOST_OPTION = 200
MOST_FILE_BYTES = 1024 * 1024
_MOST_ADDRESSES = 50_000
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
_SOUNDS = (b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\x1aE\xdf\xa3")


def may_be_tried(platform: Platform, listing: Listing, version: Version | None) -> bool:
    """Tell whether visitors may try a listing: its provider and the operator let them, and nothing typed is kept.

    A price with a monthly fee or a minimum would cost the operator something without a call.
    """
    allowed = platform.settings.portal_trial_visitors
    if allowed == "off" or version is None or listing.status != "published" or listing.visibility != "public":
        return False
    if listing.retains_inputs or listing.trains or listing.policy.get("visitors") is False:
        return False
    if listing.unit_price is None or listing.minimum or any(one.get("model") == "flat" for one in listing.components):
        return False
    hosted = hosted_networks(version.endpoint, platform.settings.models_address, listing.provider_slug)
    return allowed == "all" or bool(hosted)


@dataclass(slots=True)
class VisitorTrials:
    """Counts the calls of the day, and makes them with the operator's own key."""

    trials: Trials
    _day: str = ""
    _of_addresses: dict[str, int] = field(default_factory=dict)
    _of_services: dict[UUID, int] = field(default_factory=dict)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self, visit: Visit, listing: Listing, version: Version) -> TrialKey:
        """Return the key for one call that a visitor may make now, and count it.

        Raise SwitchedOff, RateLimited with the seconds until the next day, and ValidationFailed for what was sent.
        """
        platform = visit.platform
        await platform.switchboard.require(PORTAL_TRIAL, None)
        operator = await platform.identity.operator()
        if operator is None or not may_be_tried(platform, listing, version):
            raise SwitchedOff(_("This service is not tried without an account: sign up, and subscribe to it."))
        await check_input(visit, version)
        actor = Actor(None, operator.id, Role.PLATFORM_ADMIN, "visitors")
        async with self._opening:
            application = await _application(platform, actor)
            await self._count(visit, listing, actor, application)
            await _subscribed(platform, actor, application, listing)
        return TrialKey(await self.trials.key(visit, actor, application), own=False)

    async def _count(self, visit: Visit, listing: Listing, actor: Actor, application: UUID) -> None:
        """Take one call off the day's numbers; nothing is counted that is refused."""
        platform, settings, now = visit.platform, visit.platform.settings, visit.platform.clock.now()
        day = day_of(now, settings.zone)
        if day.label != self._day:
            self._day, self._of_addresses, self._of_services = day.label, {}, {}
        if listing.id not in self._of_services:
            chosen = CallFilter(
                org=actor.org_id, application_id=application, service_id=listing.id, start=day.start, end=day.end
            )
            self._of_services[listing.id] = await platform.usage.count(actor, chosen)
        if self._of_services[listing.id] >= settings.portal_trial_service_calls:
            message = _("Visitors have used up today's calls to this service. Sign up to go on, or come back tomorrow.")
            raise RateLimited(message, retry_after=_until(day, now))
        address = counted_address(visit.client)
        if address:
            tried = self._of_addresses.pop(address, 0)
            self._of_addresses[address] = tried  # who asked last stands last
            if tried >= settings.portal_trial_address_calls:
                message = _("Today's calls from your network are used up. Sign up to go on, or come back tomorrow.")
                raise RateLimited(message, retry_after=_until(day, now))
            self._of_addresses[address] = tried + 1
            if len(self._of_addresses) > _MOST_ADDRESSES:
                self._of_addresses = dict(list(self._of_addresses.items())[-_MOST_ADDRESSES // 2 :])
        self._of_services[listing.id] += 1


def counted_address(address: str | None) -> str:
    """Return by what a visitor's calls are counted: an IPv4 address, an IPv6 network of 64 bits, else nothing."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if not found.is_global:
        return ""
    return str(found) if found.version == 4 else str(ipaddress.ip_network((int(found), 64), strict=False))


async def check_input(visit: Visit, version: Version) -> None:
    """Raise ValidationFailed, with each field, for what is too long or is not what the field asks for.

    Files are told by how they begin, whatever they are called.
    """
    errors = []
    for control in controls_of(version):
        if control.kind == "file":
            message = _wrong_file((await visit.upload(control.place))[0], control.accept)
        elif control.kind == "code":
            continue  # the sample is sent as it is: nobody writes raw requests at the operator's cost
        else:
            most = MOST_TEXT if control.kind == "textarea" else MOST_OPTION
            text = visit.text(control.place)
            message = _("Enter at most %(most)s characters.", most=formats.number(most)) if len(text) > most else ""
            if control.kind == "select" and text and text not in {value for value, _label in control.options}:
                message = _("Choose one of the list.")
        if message:
            errors.append({"field": control.place, "message": message})
    if errors:
        raise ValidationFailed(errors=errors)


def _wrong_file(content: bytes, accept: str) -> str:
    """Return what is wrong with a file, nothing for one that may go on; an absent one is the provider's sample."""
    if not content:
        return ""
    if len(content) > MOST_FILE_BYTES:
        return _("The file is too large: at most 1 MB.")
    if accept == "image/*" and not (
        content.startswith(_IMAGES) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")
    ):
        return _("This is no picture. Choose a PNG or JPEG file.")
    wave = content[:4] == b"RIFF" and content[8:12] == b"WAVE"
    if accept == "audio/*" and not (wave or content.startswith(_SOUNDS) or content[4:8] == b"ftyp"):
        return _("This is no recording. Choose a WAV, MP3, Ogg or FLAC file.")
    return ""


async def _application(platform: Platform, actor: Actor) -> UUID:
    """Return the operator's application for these calls, made when there is none."""
    found = next((one for one in await platform.identity.applications(actor) if one.name == APPLICATION), None)
    return (found or await platform.identity.create_application(actor, APPLICATION)).id


async def _subscribed(platform: Platform, actor: Actor, application: UUID, listing: Listing) -> None:
    subscriptions = await platform.subscriptions.of(actor)
    if any(one.service_id == listing.id and one.application_id == application for one in subscriptions):
        return
    try:
        await platform.subscriptions.subscribe(actor, application, listing.id, PLAN)
    except AlreadyExists:  # another process was faster
        return


def _until(day: Period, now: datetime) -> int:
    return math.ceil((day.end - now).total_seconds())
