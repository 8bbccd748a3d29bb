"""One usage event a call: recorded before its last byte is written, confirmed once the kernel has it.

The metering promise rests on the order here. `Meter.record` is called before the answer's final
bytes are handed to the transport. A transport that has nothing left to send has given everything to
the kernel; that is looked at right after the write and, for a client that reads slowly, again each
tick. The ids found so are confirmed in one batch a tick. Records of plain calls are written together with the
others of the same turn of the event loop, before the first of that turn's bytes leaves: `Meter.write_turn`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from haat.gateway.call import ID_AT, ID_END, NO_UNITS, Call
from haat.gateway.clock import CallIds, GatewayClock
from haat.gateway.market.routes import Route
from haat.gateway.units import counted_units, settle
from haat.gateway.upstreams.traffic import Traffic
from haat.kernel.errors import JournalFull, JournalUnavailable
from haat.usage.disk import Disk
from haat.usage.event import TEST, VERSION, Checkpoint, Outcome, Timings, UsageEvent, encode
from haat.usage.journal import JournalError, JournalWriter, Kind

if TYPE_CHECKING:
    from haat.gateway.http.client import Client
    from haat.gateway.market.snapshot import Credential, Subscription

log = logging.getLogger(__name__)

CHECKPOINT_BYTES = 256 * 1024
"""A stream writes a checkpoint before each further so many bytes are forwarded."""
_LONGEST_TURN = 256
"""Records that are kept for the end of a turn, at most."""
_PLAIN = (
    b'{"id":"%b","at":%d,"outcome":"completed","v":%d,%b,"method":"%b","status":%d,"timings_us":{"admission":%d,'
    b'"queue":%d,"connect":%d,"first_byte":%d,"total":%d},"bytes_in":%d,"bytes_out":%d}'
)
"""A completed call about which nothing special is known: as `encode` would write it, without making the event."""
_OPENING = (
    b'{"id":"%b","at":%d,"outcome":"interrupted","v":%d,%b,"method":"%b","timings_us":{"admission":%d,'
    b'"queue":%d,"connect":%d,"first_byte":%d,"total":%d},"bytes_in":%d,"bytes_out":%d}'
)
"""The same for the opening of a stream."""
_USAGE, _OPEN = int(Kind.USAGE), int(Kind.OPEN)  # an enum's member costs more to use than a number


class Meter:
    """Writes the journal for all calls of this gateway."""

    def __init__(self, journal: JournalWriter, clock: GatewayClock, ids: CallIds) -> None:
        self.elsewhere = Traffic(clock.lately)
        """Calls that reached no service: refused before it was known."""
        self.failing = journal.full
        """The journal refused the last record, or is full: calls are turned away until `probe` succeeds."""
        self.full = journal.full
        """There is no space: refusals are not recorded either, because that is for calls in flight."""
        self.unrecorded = 0
        """Refusals of which that was true."""
        self.recorded = 0
        self.observers: tuple[Callable[[UsageEvent], None], ...] = ()
        """Who wants to see each event after it was recorded: plugins."""
        self.worker = journal.worker
        self._journal, self._clock, self._ids = journal, clock, ids
        self._draining: set[Client] = set()
        self._final: list[bytes] = []
        self._turn: list[Call] = []
        """Plain calls whose records are kept until the turn ends."""

    @property
    def disk(self) -> Disk:
        """How full the journal's disk is."""
        return self._journal.disk

    def open(self, call: Call) -> None:
        """Declare a stream before anything of it is forwarded; raise JournalError."""
        grant = call.grant
        if grant is not None and grant.record_is_plain and _is_plain(call):
            payload = _OPENING % (
                call.id_line[ID_AT:ID_END],
                call.started // 1000,
                VERSION,
                grant.opening,
                call.method,
                call.admission,
                call.queue,
                call.connect,
                call.first_byte,
                self._clock.now_us() - call.started,
                call.body_size,
                call.bytes_out,
            )
        else:
            payload = encode(self._event(call, Outcome.INTERRUPTED))
        self._append(_OPEN, payload)
        call.opened = True

    def checkpoint(self, call: Call) -> None:
        """Say how far a stream has come before that part is forwarded; raise JournalError."""
        units = call.units if call.units else counted_units(call)
        self._append(Kind.CHECKPOINT, encode(Checkpoint(call.id, units, call.bytes_out)))
        call.checkpointed = call.bytes_out

    def record(self, call: Call, outcome: Outcome, status: int, error_code: str = "") -> None:
        """Write the call's event and settle its reservation; raise JournalError.

        Twice for one call does nothing: the first reason stands.
        """
        if call.recorded:
            return
        call.recorded = True
        total, route = self._clock.now_us() - call.started, call.route
        traffic = self.elsewhere if route is None else route.traffic
        traffic.count(call.method, status, total)
        if outcome is Outcome.REFUSED:
            traffic.refused += 1
        if call.credential is None:
            return
        grant = call.grant
        plain = outcome is Outcome.COMPLETED and grant is not None and grant.record_is_plain and _is_plain(call)
        if plain:
            assert grant is not None
            started = call.started
            payload = _PLAIN % (
                call.id_line[ID_AT:ID_END],
                started // 1000,
                VERSION,
                grant.record,
                call.method,
                status,
                call.admission,
                call.queue,
                call.connect,
                call.first_byte,
                total,
                call.body_size,
                call.bytes_out,
            )
        else:
            payload = encode(self._event(call, outcome, status, error_code))
            if route is not None and route.arm is not None:
                route.arm.count(call, outcome, status, total)
        settled = settle(call, outcome)  # before the record: killed between the two, the quota has it, the bill not
        cover = None if grant is None else grant.cover
        if plain and settled and cover is None and call.once is None and not self.observers:
            self._journal.keep(_USAGE, payload)
            self._turn.append(call)
            if len(self._turn) >= _LONGEST_TURN:
                self.write_turn()
        else:
            try:
                self._append(_USAGE, payload)
            except JournalError:
                if settled and call.allowance is not None:
                    call.allowance.give_back(call.period, call.reserved)
                if settled and cover is not None:
                    cover.release(call)
                if call.once is not None:
                    call.once.unsold()
                raise
            if settled and cover is not None:
                cover.settle(call, outcome)  # after the record: what a purse counts as used is in the journal
        call.outcome = outcome
        call.confirmable = True
        self.recorded += 1
        if self.observers:
            event = self._event(call, outcome, status, error_code)
            for observe in self.observers:
                observe(event)

    def write_turn(self) -> None:
        """Write the records that this turn has kept; when the disk doesn't take them, nobody is answered.

        What was to be written to the callers is still here, and most can be told the reason instead.
        """
        turn = self._turn
        if not turn:
            return
        self._turn = []
        try:
            self._journal.flush()
        except JournalError as error:
            self._fail(error)
            for call in turn:
                call.confirmable = False
                if call.allowance is not None:
                    call.allowance.give_back(call.period, call.reserved)
                call.client.take_back(call, self.trouble())
                self.unrecorded += 1

    def await_confirmation(self, client: Client) -> None:
        """Look at this connection until its transport has given everything to the kernel."""
        self._draining.add(client)

    def confirm(self, call: Call) -> None:
        """Declare a call's record final with the next batch."""
        if call.confirmable:
            self._final.append(self._ids.octets(call.number))

    def client_left(self, call: Call) -> None:
        """Replace the record of an answer that never reached the caller whole."""
        if not call.confirmable:
            return
        if call.outcome is Outcome.COMPLETED:
            if call.once is not None:
                call.once.unsold()
            event = self._event(call, Outcome.CLIENT_LEFT, call.status)
            event.units = event.cached_units = {}
            try:
                self._append(Kind.USAGE, encode(event))
            except JournalError:
                return  # unconfirmed: not billed either
        self.confirm(call)

    def flush(self) -> None:
        """Confirm what the kernel has taken since the last time."""
        self.write_turn()
        if self._draining:
            for client in [client for client in self._draining if client.drained()]:
                self._draining.discard(client)
                for call in client.unconfirmed:
                    self.confirm(call)
                client.unconfirmed.clear()
        if self._journal.full is not self.full:
            self.full = self._journal.full
            self.failing = self.failing or self.full
        if self._final and (self.full or not self.failing):
            try:
                self._journal.confirm(self._final)
            except JournalError as error:
                self._fail(error)
                return
            self._final.clear()

    def forget(self, client: Client) -> None:
        self._draining.discard(client)

    def probe(self) -> None:
        """Try whether the disk takes records again."""
        self.write_turn()
        if self.failing and not self.full:
            try:
                self._journal.append(Kind.CONFIRM, b"")
            except JournalError:
                return
            self.failing = False
            log.warning("the journal takes records again")

    def _append(self, kind: int, payload: bytes) -> None:
        self.write_turn()
        try:
            self._journal.append(kind, payload)
        except JournalError as error:
            self._fail(error)
            raise

    def trouble(self) -> JournalUnavailable:
        """Return what to tell a caller whose call can't be recorded."""
        return JournalFull() if self.full else JournalUnavailable()

    def _fail(self, error: JournalError) -> None:
        if not self.failing:
            log.error("calls are refused, because they can't be metered: %s", error)
        self.failing = True
        self.full = self._journal.full

    def _event(self, call: Call, outcome: Outcome, status: int = 0, error_code: str = "") -> UsageEvent:
        credential, route, subscription = call.credential, call.route, call.subscription
        assert credential is not None
        counted_here = call.extras is not None and call.extras.counted
        raw_usage = "" if counted_here else call.raw_usage
        event = UsageEvent(
            id=call.id,
            at=call.started // 1000,
            outcome=outcome,
            v=VERSION,
            org=credential.org,
            application=credential.application,
            credential=credential.id,
            method=call.method.decode("ascii"),
            status=status,
            error_code=error_code,
            timings_us=Timings(
                call.admission, call.queue, call.connect, call.first_byte, self._clock.now_us() - call.started
            ),
            bytes_in=call.body_size,
            bytes_out=call.bytes_out,
            gateway=self.worker,
        )
        if credential.test:
            event.mode = TEST
        if route is not None:
            service = route.service
            event.provider = service.provider
            event.provider_org = service.provider_org
            event.service = service.id
            event.service_slug = service.slug
            event.version = route.version.version
            event.region = service.region
            event.path_template = route.path_template
            if route.arm is not None:
                event.rollout, event.arm = route.arm.rollout, route.arm.name
            if route.executing is not route.version:
                event.variant = route.executing.version
            if call.attempts:
                event.attempts = call.attempts + 1
            if call.endpoint is not None and call.endpoint.service.id != service.id:
                other = call.endpoint.service  # charged as what was subscribed to, earned by who executed it
                event.provider = other.provider
                event.provider_org = other.provider_org
                event.version = call.endpoint.version.version
                event.region = other.region
                event.executed_by = other.id
        if subscription is not None:
            event.subscription = subscription.id
            event.plan = subscription.plan
        if credential.test:  # nobody earns by it, and no reader of any release can put it on a bill
            event.provider_org = event.subscription = ""
        if outcome is Outcome.COMPLETED or (outcome is Outcome.CLIENT_LEFT and call.streaming and call.bytes_out):
            event.units = call.units if call.units else counted_units(call)
            known = call.units and not counted_here and (raw_usage or call.cache == "hit")
            event.units_source = "upstream" if known else "counted"
            if call.cache == "hit" and route is not None and route.service.unit in event.units:
                event.cached_units = {route.service.unit: event.units[route.service.unit]}
            elif call.cache == "partial":
                event.cached_units = call.cached_units
        if call.cache:
            event.cache = call.cache
            if call.cache != "miss" and call.cache != "bypass" and subscription is not None:
                event.cached_share = subscription.cached_share
        if raw_usage:
            event.raw_usage = raw_usage
        if call.user:
            event.user = call.user[:256].decode("utf-8", "replace")
        if call.tags:
            event.tags = parse_tags(call.tags)
        if call.caller_request_id:
            event.caller_request_id = call.caller_request_id[:128].decode("utf-8", "replace")
        if call.language_pair:
            event.language_pair = call.language_pair
        if call.extras is not None:
            event.trace = call.extras.trace.decode("ascii")
            if call.extras.shadow is not None:
                call.extras.shadow.mark(event)
        return event


def _is_plain(call: Call) -> bool:
    """Tell whether nothing special is known about a call, so that its record can be put together from bytes."""
    return call.units is NO_UNITS and not (
        call.labelled or call.raw_usage or call.language_pair or call.cache or call.attempts
    )


def record_part(
    credential: Credential, route: Route, subscription: Subscription, worker: str, *, counted: bool
) -> bytes:
    """Return the members of a plain record that are the same for every call under one grant, without braces.

    ``counted``: the call is a request that counts, and no stream that is only opened.
    """
    service = route.service
    members = {
        "org": credential.org,
        "application": credential.application,
        "credential": credential.id,
        "subscription": subscription.id,
        "plan": subscription.plan,
        "provider": service.provider,
        "provider_org": service.provider_org,
        "service": service.id,
        "service_slug": service.slug,
        "version": route.version.version,
        **({} if route.executing is route.version else {"variant": route.executing.version}),
        "region": service.region,
        "path_template": route.path_template,
        **({"units": {"requests": "1"}, "units_source": "counted"} if counted else {}),
        "gateway": worker,
    }
    if credential.test:  # as `Meter._event` has it
        del members["subscription"], members["provider_org"]
        members["mode"] = TEST
    return encode(members)[1:-1]


def parse_tags(value: bytes) -> dict[str, str]:
    """Return the caller's labels, at most 16: ``team=search, urgent`` → ``{"team": "search", "urgent": ""}``."""
    tags: dict[str, str] = {}
    for part in value[:2048].decode("utf-8", "replace").split(",")[:16]:
        name, _, text = part.strip().partition("=")
        if name:
            tags[name.strip()[:64]] = text.strip()[:256]
    return tags
