"""The usage event: what one call was, in one versioned record.

Every authenticated request makes exactly one, refusals included. Its id is the request id. Records
are read by other versions of this program: a reader ignores members it doesn't know and fills in
the ones an older writer left out.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

VERSION = 1
LIVE, TEST, SHADOW = "live", "test", "shadow"


class Outcome(StrEnum):
    """What became of a call, and with it whether it is billed."""

    COMPLETED = "completed"
    """Answered by the provider with 2xx or 3xx: billed."""
    CLIENT_LEFT = "client_left"
    """The caller went before the end: what was delivered is billed."""
    PROVIDER_FAILED = "provider_failed"
    """The provider gave 4xx, 5xx, nothing usable or nothing in time: units are empty, not billed."""
    REFUSED = "refused"
    """Turned away by the gateway before dispatch: not billed."""
    INTERRUPTED = "interrupted"
    """Found by recovery: a stream was opened and its worker died. Its units count for the quota only."""
    UNCONFIRMED = "unconfirmed"
    """Found by recovery: recorded, but nobody can say that it was answered. Not billed."""

    @classmethod
    def _missing_(cls, value: object) -> Outcome:
        """An outcome that a newer gateway invented is, for us, in doubt: for the customer."""
        return cls.UNCONFIRMED


class Timings(msgspec.Struct, omit_defaults=True, gc=False):
    """Microseconds from the arrival of the request head to the end of each stage; 0 = not reached.

    ``queue`` and ``connect`` are durations: the wait for an upstream connection and making a new one.
    """

    admission: int = 0
    queue: int = 0
    connect: int = 0
    first_byte: int = 0
    total: int = 0


class UsageEvent(msgspec.Struct, omit_defaults=True, gc=False):
    """One call. Ids are UUIDs as text; an empty text means "not known", as early refusals have it."""

    id: str
    """UUIDv7; also the request id the caller sees."""
    at: int
    """Milliseconds since the epoch at which the request head was complete."""
    outcome: Outcome
    v: int = msgspec.field(default=0)
    """Version of the record; writers set `VERSION`."""
    org: str = ""
    application: str = ""
    credential: str = ""
    subscription: str = ""
    plan: str = ""
    """Code of the plan, such as ``basic``."""
    user: str = ""
    """The caller's own end user (`X-Haat-User`)."""
    tags: dict[str, str] = {}
    """The caller's own labels (`X-Haat-Tags`)."""
    caller_request_id: str = ""
    provider: str = ""
    """Slug of the provider that executed the call."""
    provider_org: str = ""
    """Organisation that earns the provider's share: the one that executed the call."""
    service: str = ""
    """Id of the service."""
    service_slug: str = ""
    version: str = ""
    """Version that executed the call, of the service that did."""
    variant: str = ""
    method: str = ""
    path_template: str = ""
    """The route, never the caller's raw path."""
    status: int = 0
    """HTTP status the caller saw."""
    error_code: str = ""
    units: dict[str, str] = {}
    """Billable quantities by unit, as decimal text: ``{"characters": "120"}``."""
    units_source: str = ""
    """Who counted: ``upstream``, ``counted`` or ``estimated``."""
    raw_usage: str = ""
    """What the provider reported, word for word."""
    timings_us: Timings = msgspec.field(default_factory=Timings)
    bytes_in: int = 0
    """Bytes of request body received."""
    bytes_out: int = 0
    """Bytes of response body handed to the caller's connection."""
    cache: str = ""
    """What the response cache did: ``hit``, ``partial``, ``miss``, ``bypass``; empty where there is none."""
    cached_units: dict[str, str] = {}
    """The part of ``units`` that came out of the cache: of the unit by which the service is sold."""
    cached_share: str = ""
    """The part of the price that this costs by the plan at the time of the call, decimal text; empty for all of it."""
    region: str = ""
    """Where the provider executes, from its listing."""
    language_pair: str = ""
    """``hi-Deva>ur-Arab``, when the call named its languages."""
    attempts: int = 0
    """How often the call was sent, when it was more than once; else 0."""
    executed_by: str = ""
    """Id of the service that executed the call in place of the one called, when another did."""
    gateway: str = ""
    """Name of the worker that served the call."""
    trace: str = ""
    """The trace that the caller said the call belongs to, 32 hexadecimal digits; empty when the call began it, with
    the digits of its own id."""
    mode: str = LIVE
    """``test`` when a test key called: the gateway answered itself, nothing is rated. ``shadow`` for the copy of a call
    that its provider wanted executed by another version as well: it belongs to the provider, nothing is rated.
    Writers of older releases have
    only live calls; a mode that a newer one invented is, in doubt and for the customer, not billed either."""

    rollout: str = ""
    """Id of the rollout or experiment that decided which version executed the call."""
    arm: str = ""
    """What that calls the version: ``control``, ``candidate``, or the name of an experiment's variant."""
    agreed: bool | None = None
    """Of a shadow call: whether its answer was that of the call it copies; None when one of the two had none."""

    @property
    def is_test(self) -> bool:
        """Whether this is anything but a call that is rated and shown as one."""
        return self.mode != LIVE


class Checkpoint(msgspec.Struct, gc=False):
    """How far a stream has come: written before the units it covers are forwarded."""

    id: str
    units: dict[str, str]
    bytes_out: int


class Members(UsageEvent, forbid_unknown_fields=True, gc=False):
    """Some members of an event, and no others; what they don't say is as in an event that leaves it out."""


class Numbers(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The members of an event that are numbers of its own, and no others."""

    timings_us: Timings
    bytes_in: int = 0
    bytes_out: int = 0


_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)


class UnreadableEvent(ValueError):
    """A record whose checksum is right and whose content is not a usage event."""


_encoder = msgspec.json.Encoder()
_events = msgspec.json.Decoder(UsageEvent)
_checkpoints = msgspec.json.Decoder(Checkpoint)
_members = msgspec.json.Decoder(Members)
_NO_MEMBER = b'{"id":"","at":0,"outcome":"completed"%b}'

decode_numbers = msgspec.json.Decoder(Numbers).decode
"""Return the `Numbers` in an object of them; raise ValueError for anything else."""

encode = _encoder.encode
"""Return the JSON bytes of a `UsageEvent` or a `Checkpoint`."""


def decode(payload: bytes) -> UsageEvent:
    """Return the event in a journal payload; raise UnreadableEvent for anything else."""
    try:
        return _events.decode(payload)
    except _UNREADABLE as error:
        raise UnreadableEvent(f"not a usage event: {error}") from error


def decode_checkpoint(payload: bytes) -> Checkpoint:
    """Return the checkpoint in a journal payload; raise UnreadableEvent for anything else."""
    try:
        return _checkpoints.decode(payload)
    except _UNREADABLE as error:
        raise UnreadableEvent(f"not a checkpoint: {error}") from error


def decode_members(data: bytes) -> Members:
    """Return what a sequence of an event's members says, without braces; raise UnreadableEvent for anything else."""
    try:
        return _members.decode(_NO_MEMBER % (b"," + data if data else b""))
    except _UNREADABLE as error:
        raise UnreadableEvent(f"no members of a usage event: {error}") from error
