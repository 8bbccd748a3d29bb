"""Which version executes a call that names none, while its service's calls are divided; and what came of it.

A user stays with a version: who `X-Haat-User` names within an organisation, or else the application, falls into one of
10,000 buckets by a hash that is the same in every process and after every restart (`haat.kernel.bucketing`). A share
takes the buckets from 0 up, so that a share that grows keeps those it had.

Each process watches the versions by itself: one that is worse than the control, by the rule that the control plane
goes by as well, is left at once, and the control plane is told, which makes it last.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from haat.gateway.clock import SECOND, GatewayClock
from haat.kernel.bucketing import bucket_of
from haat.kernel.errors import HaatError
from haat.rollouts.rule import Figures, Rule, Verdict, bucket, judge
from haat.usage.event import Outcome

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.market.policy import DivisionPolicy
    from haat.gateway.market.routes import Route, RouteTable
    from haat.gateway.market.snapshot import Service
    from haat.gateway.upstreams.endpoints import Notice

CONTROL = "control"
HEADER = b"X-Haat-Variant: %b\r\n"
WINDOW_US = 60 * SECOND
"""A version is judged by what it did in the last one to two of these."""
_LOOK_EVERY = 50
"""Calls of a version between two looks at it that no failure makes necessary."""
_MOST_WATCHES = 4096


class Tripped(NamedTuple):
    """A version was left, for the event log."""

    stream: str
    kind: str
    data: dict[str, object]
    provider_org: str
    at_us: int


class Series:
    """What one version has done: lately, and as long as this process knows the division."""

    __slots__ = ("_before", "_present", "_turned", "total")

    def __init__(self) -> None:
        self.total = _Counts()
        self._present, self._before = _Counts(), _Counts()
        self._turned = 0

    def count(self, now: int, failed: bool, microseconds: int) -> None:
        """Take in one call."""
        self._turn(now)
        place = bucket(microseconds)
        self.total.add(failed, place)
        self._present.add(failed, place)

    def lately(self, now: int) -> Figures:
        """Return what was done in the present window and the one before."""
        self._turn(now)
        latency = dict(self._before.latency)
        for place, calls in self._present.latency.items():
            latency[place] = latency.get(place, 0) + calls
        return Figures(self._before.calls + self._present.calls, self._before.errors + self._present.errors, latency)

    def _turn(self, now: int) -> None:
        age = now - self._turned
        if age >= WINDOW_US:
            self._before = self._present if age < 2 * WINDOW_US else _Counts()
            self._present = _Counts()
            self._turned = now


class _Counts:
    __slots__ = ("calls", "errors", "latency")

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.latency: dict[int, int] = {}

    def add(self, failed: bool, place: int) -> None:
        self.calls += 1
        self.errors += failed
        self.latency[place] = self.latency.get(place, 0) + 1

    def figures(self) -> Figures:
        return Figures(self.calls, self.errors, self.latency)


class Watch:
    """What a division's versions have done, and which of them were left. Lives longer than the routes."""

    def __init__(self, policy: DivisionPolicy, service: Service) -> None:
        self.policy, self.service = policy, service
        self.series: dict[str, Series] = {}
        self.left: dict[str, Verdict] = {}

    def of(self, name: str) -> Series:
        """Return what a version has done, by its name."""
        series = self.series.get(name)
        if series is None:
            series = self.series[name] = Series()
        return series

    def judge(self, name: str, now: int) -> Verdict | None:
        """Return why a version is to be left now, None when it isn't, or was already."""
        if name in self.left:
            return None
        rule: Rule = self.policy.rule
        control = self.of(CONTROL)
        lately = control.lately(now)
        if lately.calls < rule.min_calls:
            lately = control.total.figures()
        verdict = judge(lately, self.of(name).lately(now), rule)
        if verdict is not None:
            self.left[name] = verdict
        return verdict


class Arm:
    """One version's part in a division: its share, its route, and its calls' way into the figures."""

    __slots__ = ("_clock", "_series", "_watches", "last", "name", "rollout", "route", "watch")

    def __init__(self, watches: Watches, watch: Watch, name: str, last: int, route: Route) -> None:
        self.name, self.last, self.route = name, last, route
        self.rollout: str = watch.policy.id
        self.watch = watch
        self._watches = watches
        self._series = watch.of(name)

    def count(self, call: Call, outcome: Outcome, status: int, microseconds: int) -> None:
        """Take in how a call ended. What no provider was asked for, or what its caller gave up, says nothing.

        A 429 is the provider guarding itself; any other answer from 400 up counts as a failure, because the control
        is held against the same, and so does an answer that another provider had to give.
        """
        if call.cache in ("hit", "replay") or outcome not in (Outcome.COMPLETED, Outcome.PROVIDER_FAILED):
            return
        if status == 429:
            return
        now = self._watches.clock.lately
        stood_in = call.endpoint is not None and call.endpoint.service.id != self.route.service.id
        failed = outcome is Outcome.PROVIDER_FAILED or stood_in
        self._series.count(now, failed, microseconds)
        if self.name != CONTROL and (failed or self._series.total.calls % _LOOK_EVERY == 0):
            verdict = self.watch.judge(self.name, now)
            if verdict is not None:
                self._watches.tell(self, verdict, now)


class Division:
    """How the calls of one service are divided. ``arms`` begin with the control."""

    def __init__(self, policy: DivisionPolicy, watch: Watch, arms: tuple[Arm, ...]) -> None:
        self.control, self.shares = arms[0], arms[1:]
        self._watch = watch
        self._salt = policy.id
        self._allowed = frozenset(policy.allow_users), frozenset(policy.allow_applications)
        self._blocked = frozenset(policy.block_users), frozenset(policy.block_applications)
        self._candidate = next((arm for arm in self.shares if arm.name == policy.shares[0].name), None)

    def arm_of(self, org: str, application: str, user: bytes, now: int) -> Arm:
        """Return who executes a call of this user, or of this application when no user is named."""
        name = user[:256].decode("utf-8", "replace") if user else ""  # as the usage event has it
        arm = self._chosen(org, application, name)
        if arm.name in self._watch.left or 0 < arm.route.sunset_at <= now:
            return self.control
        return arm

    def _chosen(self, org: str, application: str, user: str) -> Arm:
        if user in self._blocked[0] or application in self._blocked[1]:
            return self.control
        if self._candidate is not None and (user in self._allowed[0] or application in self._allowed[1]):
            return self._candidate
        place = bucket_of(self._salt, f"{org}/{user}" if user else application)
        for arm in self.shares:
            if place < arm.last:
                return arm
        return self.control


class Watches:
    """The watches of all divisions that this process has met, and what the event log is to learn of them."""

    def __init__(self, clock: GatewayClock, notices: deque[Notice | Tripped]) -> None:
        self.clock, self._notices = clock, notices
        self._watches: dict[str, Watch] = {}

    def divide(self, table: RouteTable, service: Service, policy: DivisionPolicy) -> Division:
        """Make the routes of a division. A version that isn't there gets no calls: the control has its share."""
        watch = self.of(policy, service)
        arms = [self._arm(watch, CONTROL, 0, table.make(service, policy.control))]
        last = 0
        for share in policy.shares:
            last += share.buckets
            try:
                route = table.make(service, share.version)
            except HaatError:
                continue
            if route.service.unit == service.unit and route.version.dialect == arms[0].route.version.dialect:
                arms.append(self._arm(watch, share.name, last, route))
        return Division(policy, watch, tuple(arms))

    def _arm(self, watch: Watch, name: str, last: int, route: Route) -> Arm:
        arm = Arm(self, watch, name, last, route)
        route.arm = arm
        route.lines += HEADER % name.encode("ascii")
        return arm

    def of(self, policy: DivisionPolicy, service: Service) -> Watch:
        """Return the watch of a division, by its id."""
        watch = self._watches.get(policy.id)
        if watch is None:
            if len(self._watches) >= _MOST_WATCHES:
                self._watches.clear()
            watch = self._watches[policy.id] = Watch(policy, service)
        watch.policy, watch.service = policy, service
        return watch

    def tell(self, arm: Arm, verdict: Verdict, now: int) -> None:
        """Have the control plane learn that a version was left."""
        service = arm.watch.service
        data: dict[str, object] = {
            "rollout": arm.rollout,
            "service": service.id,
            "variant": arm.name,
            "version": arm.route.version.version,
            "reason": verdict.reason,
            "figures": dict(verdict.figures),
        }
        self._notices.append(Tripped(f"rollout/{arm.rollout}", "rollout.tripped", data, service.provider_org, now))
