"""A grant: what a key may do at a target, found once and good until the market changes.

The stages that find it look at nothing but the key, the target and the directory. So their finding is
kept, and the next call with the same key and target begins with it. What differs from call to call,
limits above all, is asked each time.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from haat.gateway.call import Call
from haat.gateway.charge import FOREVER, Tariff, tariff_of
from haat.gateway.http import cors
from haat.gateway.limits.plan import without_quota
from haat.gateway.market.maintenance import next_window
from haat.gateway.market.versions import check_sunset
from haat.gateway.metering import record_part
from haat.gateway.units import ONE_REQUEST
from haat.gateway.wallets.cover import Cover, cover_of

if TYPE_CHECKING:
    from haat.gateway.doors.operation import Operation
    from haat.gateway.gateway import Gateway
    from haat.gateway.limits.registry import Allowance
    from haat.gateway.market.routes import Route
    from haat.gateway.market.snapshot import Credential, Subscription
    from haat.gateway.rollout.division import Division

_MOST = 65_536
_LONGEST_TARGET = 256


class Known:
    """What is known of a key and a target. Good for one ``generation`` of the market, before ``until``."""

    __slots__ = ("credential", "generation", "until")

    def __init__(self, credential: Credential, generation: int) -> None:
        self.credential, self.generation = credential, generation
        self.until: int = min(credential.expires_at or FOREVER, credential.revoked_at or FOREVER)


class Entrance(Known):
    """The target is a front door's, for requests with this method."""

    __slots__ = ("method", "operation")

    def __init__(self, gateway: Gateway, call: Call, operation: Operation) -> None:
        assert call.credential is not None
        super().__init__(call.credential, gateway.directory.generation)
        self.method, self.operation = call.method, operation


class Grant(Known):
    """Everything about a call that its key and target decide, and the bytes made of it."""

    __slots__ = (
        "allowance",
        "body_limit",
        "cover",
        "lines",
        "opening",
        "record",
        "record_is_plain",
        "request",
        "route",
        "service_path",
        "subscription",
        "tail",
        "tariff",
        "units_line",
        "varies",
    )

    def __init__(self, gateway: Gateway, call: Call) -> None:
        credential, route, subscription = call.credential, call.route, call.subscription
        assert credential is not None and route is not None and subscription is not None
        super().__init__(credential, gateway.directory.generation)
        self.route: Route = route
        self.subscription: Subscription = subscription
        self.service_path: bytes = call.service_path
        self.tail: bytes = call.tail
        if route.sunset_at:
            self.until = min(self.until, route.sunset_at)
        self.until = min(self.until, next_window(route.service, call.started))
        test = credential.test
        self.allowance: Allowance = gateway.limits.of(
            # Test keys keep to the plan's rates, counted apart, and use nothing of its quota.
            f"{subscription.application} test" if test else subscription.application,
            subscription.service,
            without_quota(subscription.limits) if test else subscription.limits,
            subscription.zone,
            call.started,
            subscription.started_at,
            route.service.max_per_second,
        )
        self.body_limit: int = min(route.version.max_body_bytes, gateway.settings.max_body_bytes)
        self.request: bytes = route.endpoint.request(call.tail)
        """The request line to the provider after its method, and the lines that are the same for every call."""
        self.record: bytes = record_part(credential, route, subscription, gateway.meter.worker, counted=True)
        self.opening: bytes = record_part(credential, route, subscription, gateway.meter.worker, counted=False)
        self.record_is_plain: bool = route.service.unit != "bytes"
        self.lines: bytes = gateway.security_lines + route.lines
        """What every answer says."""
        self.varies: bytes = cors.varies(gateway, credential)
        """What it says to caches about web pages, when it isn't one that asks."""
        self.tariff: Tariff | None = tariff_of(route.service, subscription, call.started)
        if test:
            self.tariff = Tariff(route.service.unit, Decimal(0), Decimal(0), FOREVER)
        self.cover: Cover | None = None
        """What must cover its calls before they are made."""
        if (subscription.prepaid or subscription.stops) and not test:
            self.cover, until = cover_of(gateway, route.service, subscription, call.started)
            self.until = min(self.until, until)
        self.units_line: bytes = ONE_REQUEST if route.service.unit == "requests" else b""
        if self.tariff is not None:
            self.until = min(self.until, self.tariff.until)
            if self.units_line:
                self.units_line += self.tariff.line(Decimal(1))


class Divided(Known):
    """The target's calls are divided between versions: a grant for each of them, made when first needed."""

    __slots__ = ("_division", "_grants", "_service_path", "_subscription", "_tail")

    def __init__(self, gateway: Gateway, call: Call) -> None:
        assert call.credential is not None and call.route is not None and call.subscription is not None
        assert call.route.division is not None
        super().__init__(call.credential, gateway.directory.generation)
        self.until = min(self.until, next_window(call.route.service, call.started))
        self._division: Division = call.route.division
        self._subscription: Subscription = call.subscription
        self._service_path: bytes = call.service_path
        self._tail: bytes = call.tail
        self._grants: dict[str, Grant] = {}

    def grant(self, gateway: Gateway, call: Call) -> Grant:
        """Return the grant of the version that executes this call; raise VersionRetired when none is left."""
        credential = self.credential
        arm = self._division.arm_of(credential.org, credential.application, call.user, call.started)
        grant = self._grants.get(arm.name)
        if grant is None or call.started >= grant.until:
            route = arm.route
            if route.sunset_at:
                check_sunset(route, call.started)
            call.credential, call.route, call.subscription = credential, route, self._subscription
            call.service_path, call.tail = self._service_path, self._tail
            grant = self._grants[arm.name] = Grant(gateway, call)
            grant.record_is_plain = False  # it says which version it was, and is counted for the comparison
        return grant


class Grants:
    """The grants and entrances in use, bounded; which they are shows in how calls come, so there is nothing to tune."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], Known] = {}

    def find(self, gateway: Gateway, call: Call) -> Known | None:
        """Return what was found earlier of a call's key and target, unless it is out of date."""
        known = self._known.get((call.bearer or call.api_key, call.target))
        if known is None or known.generation != gateway.directory.generation or call.started >= known.until:
            return None
        return known

    def keep(self, call: Call, known: Known) -> None:
        """Keep what was found of a call's key and target."""
        target = call.target
        if len(target) > _LONGEST_TARGET or b"?" in target:
            return  # most likely never asked again
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[call.bearer or call.api_key, target] = known
