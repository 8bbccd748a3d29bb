"""The cache on a call's way: answer it, let it wait for the same question's answer, or send it on.

It is the last step before the provider, so that what it keeps is the provider's own answer: whatever
else looks at requests and answers does so for each caller, known answer or not.

Of calls that ask the same at the same time one goes to the provider and the others wait, each with its
own deadline. If the one ends without an answer, because its client left or its connection broke, the
next one goes in its place, with all the time it was granted; after a second loss everybody goes. Nor
does anybody wait where answers turn out not to be kept.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import TYPE_CHECKING

from haat.gateway import relay
from haat.gateway.cache.answers import LABELS, Untouched, as_units, capped, labelled, reported_units, sign
from haat.gateway.cache.batch import (
    Answered,
    Batch,
    Micro,
    add,
    decimal,
    divide,
    micro,
    name_places,
    put_together,
    read_answer,
    take_apart,
    weight,
)
from haat.gateway.cache.keys import (
    Asking,
    answer_key,
    canonical,
    entity_tag,
    kept_lines,
    lifetime,
    read_asking,
)
from haat.gateway.cache.memory import Answer, Cache, Flight, Item, Space
from haat.gateway.call import NO_UNITS, Call
from haat.gateway.extras import extras_of, was_counted
from haat.gateway.http.answers import REASONS, Whole
from haat.gateway.limits.reservations import most_of
from haat.gateway.units import read_usage
from haat.gateway.upstreams import dispatch
from haat.kernel.errors import ProviderFailed

if TYPE_CHECKING:
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route, Step

_LOSSES = 2
_INVOKE = b"/invoke"
_JSON = b"Content-Type: application/json\r\n"


class Question:
    """A call as the cache sees it. ``places`` are the items of its batch that the provider is asked for."""

    __slots__ = ("asking", "batch", "body", "call", "flight", "key", "known", "places")

    def __init__(self, call: Call, asking: Asking, key: bytes, body: bytes, batch: Batch | None) -> None:
        self.call, self.asking, self.key, self.body, self.batch = call, asking, key, body, batch
        self.flight: Flight | None = None
        """The flight it leads."""
        self.known: list[Item | None] = []
        self.places: list[int] = []


class CacheStep:
    """The step of one route: `haat.gateway.market.routes.Step`."""

    def __init__(self, cache: Cache, space: Space, route: Route) -> None:
        self._cache, self._space, self._route = cache, space, route
        self._items = space.policy.items and route.executing.takes_tasks
        self._unit: str = route.service.unit

    def __call__(self, gateway: Gateway, call: Call) -> bool:
        method = call.method
        if call.accepts_stream or (method != b"POST" and method != b"GET" and method != b"HEAD"):
            return True
        cache, now = self._cache, gateway.clock.now_us()
        asking = read_asking(call.lines, self._space.names)
        if asking.untouched:
            cache.bypassed += 1
            call.cache = "bypass"
            if method != b"HEAD":
                call.on_answer = [*call.on_answer, Untouched()]
            return True
        question = self._question(call, asking)
        if not asking.refresh:
            if self._answer(gateway, question, now):
                return False
            flight = cache.flights.get(question.key)
            if flight is not None:
                flight.waiting.append(question)
                cache.coalesced += 1
                return False
            if method != b"HEAD" and not cache.passes(question.key, now):
                question.flight = cache.flights[question.key] = Flight(question.key)
        self._lead(question)
        return True

    def _question(self, call: Call, asking: Asking) -> Question:
        space, body, grant = self._space, b"".join(call.body), call.grant
        assert grant is not None
        read = canonical(body) if asking.json and body else None
        batch = None
        if read is not None:
            data, body = read
            if self._items and call.method == b"POST" and grant.tail == _INVOKE:
                batch = take_apart(data, space.digest, asking.selecting)
        key = answer_key(space.digest, call.method, grant.tail, asking.selecting, body)
        return Question(call, asking, key, body, batch)

    # --- answering ------------------------------------------------------------------------------

    def _answer(self, gateway: Gateway, question: Question, now: int) -> bool:
        """Answer a call with what is known, and tell whether that was all it asked for."""
        if question.batch is not None:
            return self._answer_batch(gateway, question, question.batch, now)
        entry = self._cache.find(question.key, now)
        if not isinstance(entry, Answer) or 0 <= question.asking.max_age < entry.age(now):
            return False
        call = question.call
        if entry.raw_usage:  # taken in as if it were reported for this very call
            read_usage(call, self._route, entry.raw_usage.encode("ascii", "replace"))
        elif entry.counted:
            call.units = capped(call, entry.counted)
        if entry.is_counted:
            extras_of(call).counted = True
        lines = entry.head.splitlines(keepends=True)
        answer = Whole(200, REASONS[200], lines, entry.body)
        self._send(gateway, question, answer, entry.tag, entry.age(now), entry.seconds(), now)
        return True

    def _answer_batch(self, gateway: Gateway, question: Question, batch: Batch, now: int) -> bool:
        cache, most = self._cache, question.asking.max_age
        known: list[Item | None] = []
        for key in batch.keys:
            entry = cache.find(key, now)
            fits = isinstance(entry, Item) and not 0 <= most < entry.age(now)
            known.append(entry if fits and isinstance(entry, Item) else None)
        question.known = known
        if None in known:
            return False
        items = [item for item in known if item is not None]
        usage: Micro = {}
        units: Micro = {}
        for item in items:
            add(usage, item.usage)
            add(units, item.units)
        question.call.units = capped(question.call, as_units(units))
        if any(item.is_counted for item in items):
            extras_of(question.call).counted = True
        body = put_together([item.output for item in items], usage)
        date = b"Date: %b\r\n" % formatdate(now / 1_000_000, usegmt=True).encode("ascii")
        oldest = max(items, key=lambda item: item.age(now))
        left = min(item.expires_at for item in items) - now
        age = oldest.age(now)
        answer = Whole(200, REASONS[200], [date, _JSON], body)
        tag = entity_tag(self._space.digest, [], body)
        cache.items_known += len(items)
        self._send(gateway, question, answer, tag, age, age + left // 1_000_000, now)
        return True

    def _send(
        self, gateway: Gateway, question: Question, answer: Whole, tag: bytes, age: int, seconds: int, now: int
    ) -> None:
        self._cache.hits += 1
        self._space.hits += 1
        call = question.call
        call.first_byte = now - call.started
        sign(answer, question.asking, tag, age, seconds, b"HIT")
        relay.answer_whole(call, answer, cache="hit")

    # --- asking ---------------------------------------------------------------------------------

    def _lead(self, question: Question) -> None:
        """Make the call one that goes to the provider: with what is in its key, and nothing else."""
        call, cache, space = question.call, self._cache, self._space
        call.lines = question.asking.lines
        if question.asking.refresh:
            call.cache = "bypass"
            cache.bypassed += 1
        elif self._reduce(question):
            call.cache, call.cached_units = "partial", NO_UNITS
            cache.partial += 1
            space.partial += 1
        else:
            call.cache = "miss"
            cache.misses += 1
            space.misses += 1
        if question.body:
            call.body = [question.body]
        if call.method != b"HEAD":
            call.on_answer = [*call.on_answer, Asked(self, question)]

    def _reduce(self, question: Question) -> bool:
        """Leave out of a batch what is known, and what is in it twice; tell whether that was anything."""
        batch = question.batch
        if batch is None:
            return False
        first: dict[bytes, int] = {}
        for place, (key, item) in enumerate(zip(batch.keys, question.known, strict=True)):
            if item is None:
                first.setdefault(key, place)
        question.places = list(first.values())
        if len(question.places) == len(batch.items):
            return False
        question.body = batch.body(question.places)
        return True

    def answered(self, question: Question, answer: Whole) -> None:
        """Keep the provider's answer if that may be, sign it, and see to those who wait for it."""
        call, cache = question.call, self._cache
        gateway = call.client.gateway
        now = gateway.clock.now_us()
        seconds = self._lifetime(call, answer)
        kept = False
        try:
            if question.batch is not None:
                kept = self._take_batch(question, question.batch, answer, seconds, now)
            elif seconds:
                lines = kept_lines(answer.lines)
                counted = NO_UNITS if call.raw_usage else call.units
                entry = Answer(
                    self._space,
                    question.key,
                    now,
                    seconds,
                    lines,
                    answer.body,
                    call.raw_usage,
                    counted,
                    was_counted(call),
                )
                kept = cache.keep(entry)
                if kept:
                    answer.lines = lines
                    sign(answer, question.asking, entry.tag, 0, seconds, LABELS[call.cache])
            if not kept and question.batch is None:
                answer.lines = labelled(answer.lines, LABELS[call.cache])
        finally:
            flight, question.flight = question.flight, None
            if flight is not None:
                del cache.flights[flight.key]
                if not kept and answer.status == 200:
                    cache.pass_by(flight.key, now)
                self._release(gateway, flight.waiting)

    def _lifetime(self, call: Call, answer: Whole) -> int:
        """Return for how many seconds an answer may be kept: only a service's own one, and only a success."""
        if answer.status != 200 or (call.endpoint is not None and call.endpoint.service.id != self._space.service):
            return 0
        return lifetime(answer.lines, self._space.policy.ttl_seconds, self._space.names)

    def _take_batch(self, question: Question, batch: Batch, answer: Whole, seconds: int, now: int) -> bool:
        """Keep a batch's outputs each by itself, and put them together with what was known."""
        call = question.call
        label = LABELS[call.cache]
        places = question.places or list(range(len(batch.items)))
        reduced = len(places) < len(batch.items)
        if answer.status != 200:
            if reduced and answer.status < 500:
                answer.body = name_places(answer.body, places)
            answer.lines = labelled(answer.lines, label)
            return False
        found = read_answer(answer.body)
        if found is None and not reduced:
            answer.lines = labelled(answer.lines, label)
            return False
        if found is None or len(found.outputs) != len(places):
            count = "no" if found is None else str(len(found.outputs))
            raise ProviderFailed(f"The provider gave {count} outputs for {len(places)} inputs; the call is not billed.")
        self._cache.items_asked += len(places)
        fresh = self._fresh(question, batch, places, found, seconds, now)
        kept = [self._cache.keep(item) for item in fresh] if seconds and not found.others else []
        if reduced:
            self._merge(question, batch, answer, found, fresh)
        if not kept or not all(kept):
            answer.lines = labelled(answer.lines, label)
            return False
        if not reduced:
            answer.body = put_together(found.outputs, found.usage)  # as it will be the next time
        answer.lines = kept_lines(answer.lines)
        tag = entity_tag(self._space.digest, [], answer.body)
        expires_at = min(item.expires_at for item in [*fresh, *question.known] if item is not None)
        sign(answer, question.asking, tag, 0, (expires_at - now) // 1_000_000, label)
        return True

    def _fresh(
        self, question: Question, batch: Batch, places: list[int], found: Answered, seconds: int, now: int
    ) -> list[Item]:
        """Return the outputs with the units that fall to each: what was reported, divided."""
        weights = [weight(batch.items[place]) for place in places]
        units, usage = divide(reported_units(question.call.raw_usage), weights), divide(found.usage, weights)
        counted = was_counted(question.call)
        return [
            Item(self._space, batch.keys[place], now, seconds, output, units[at], usage[at], counted)
            for at, (place, output) in enumerate(zip(places, found.outputs, strict=True))
        ]

    def _merge(self, question: Question, batch: Batch, answer: Whole, found: Answered, fresh: list[Item]) -> None:
        """Answer the whole batch, and count what the provider was not asked for as cached."""
        call, unit = question.call, self._unit
        by_key = {item.key: item for item in fresh}
        usage, cached = found.usage, dict[str, int]()
        outputs: list[bytes] = []
        asked = set(question.places)
        for place, (key, known) in enumerate(zip(batch.keys, question.known, strict=True)):
            item = by_key[key] if known is None else known
            outputs.append(item.output)
            if place not in asked:
                add(usage, item.usage)
                add(cached, item.units)
        answer.body = put_together(outputs, usage, found.others)
        reported = {name: micro(text) for name, text in call.units.items()}
        for name, quantity in cached.items():
            cached[name] = max(0, min(quantity, most_of(call, name) - reported.get(name, 0)))
        if call.units or cached:
            whole = dict(reported)
            add(whole, cached)
            call.units = as_units(whole)
        if unit in cached:
            call.cached_units = {unit: decimal(cached[unit])}
        elif unit == "bytes" and not call.units:  # counted here: those of the request
            call.cached_units = {unit: str(max(0, call.body_size - len(question.body)))}
        self._cache.items_known += len(outputs) - len(asked)

    # --- those who wait -------------------------------------------------------------------------

    def missed(self, question: Question) -> None:
        """The call that asked the provider ended without an answer that can be looked at."""
        flight, question.flight = question.flight, None
        if flight is None:
            return
        gateway = question.call.client.gateway
        flight.losses += 1
        if not question.call.answered:  # it streams: there is no answer to wait for
            flight.losses = _LOSSES
            self._cache.pass_by(flight.key, gateway.clock.now_us())
        asyncio.get_running_loop().call_soon(self._succeed, gateway, flight)

    def _succeed(self, gateway: Gateway, flight: Flight) -> None:
        """Let the next one ask, or everybody after too many losses."""
        waiting = [question for question in flight.waiting if not question.call.answered]
        flight.waiting = []
        if not waiting or flight.losses >= _LOSSES:
            del self._cache.flights[flight.key]
            self._release(gateway, waiting)
            return
        successor, *flight.waiting = waiting
        successor.flight = flight
        deadline = gateway.clock.now_us() + self._route.timeout_us
        for question in waiting:
            question.call.deadline = deadline  # the time until now was somebody else's
        self._lead(successor)
        dispatch.resume(gateway, successor.call)

    def _release(self, gateway: Gateway, waiting: list[Question]) -> None:
        """Let those who waited go on, each in a turn of its own, so that one's trouble is not another's."""
        loop = asyncio.get_running_loop()
        for question in waiting:
            loop.call_soon(self._go_on, gateway, question)

    def _go_on(self, gateway: Gateway, question: Question) -> None:
        call = question.call
        if call.answered:
            return
        now = gateway.clock.now_us()
        if self._answer(gateway, question, now):
            return
        call.deadline = now + self._route.timeout_us
        self._lead(question)
        dispatch.resume(gateway, call)


class Asked:
    """Sees the answer to a question: `haat.gateway.http.answers.AnswerStep`."""

    def __init__(self, step: CacheStep, question: Question) -> None:
        self._step, self._question = step, question

    def answered(self, call: Call, answer: Whole) -> None:
        self._step.answered(self._question, answer)

    def missed(self, call: Call) -> None:
        self._step.missed(self._question)


def cache_step(gateway: Gateway, route: Route) -> Step | None:
    """Return the step of a route whose listing has its answers kept."""
    policy = route.service.policy.cache
    if policy is None or gateway.cache.most == 0:
        return None
    return CacheStep(gateway.cache, gateway.cache.space(route.service, route.version, policy), route)
