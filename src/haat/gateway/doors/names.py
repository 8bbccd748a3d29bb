"""Which service a client means by a model's name.

A listing's own name is ``provider/service``, with ``@version`` if need be. Listings may have aliases, under which
programs know them that were written for something else. And who names no provider names what is to be
done: ``translation:hi-ur`` is the best service for it among those that the application is subscribed to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from haat.gateway.market.scopes import opens, out_of_scope
from haat.kernel.errors import HaatError, NotSubscribed, ServiceNotFound
from haat.language import parse_tag

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.policy import Quality
    from haat.gateway.market.routes import Route
    from haat.gateway.market.snapshot import Credential, Service, Version

Policy = Literal["price", "latency", "quality"]
_CAPABILITY = re.compile(r"([a-z_]+)(?::([A-Za-z-]+?)(?:[-_>]([A-Za-z]{2,3}(?:-[A-Za-z]{4})?))?)?")
_LONGEST_TAG = 40
_TO_CALL = ("published", "deprecated")


class Names:
    """The names of a market's services, made anew when its services change."""

    def __init__(self) -> None:
        self._generation = -1
        self._aliases: dict[str, list[Service]] = {}
        """Who says that it is also called so."""
        self._kept: dict[str, tuple[int, Any]] = {}

    def find(self, gateway: Gateway, call: Call, name: str) -> Route:
        """Return the route that a model's name means to this caller; raise what speaks against it."""
        self._keep_up(gateway)
        if name.partition("@")[0] in gateway.directory.services:  # no alias is ever taken for a listing's own name
            return gateway.routes.find(name.encode("utf-8", "replace"))
        called_so = self._aliases.get(name)
        if called_so:
            return gateway.routes.find(best(gateway, call, called_so).path.encode("ascii"))
        match = _CAPABILITY.fullmatch(name)
        if match is None:
            raise _unknown(name)
        wanted, source, target = match.groups()
        found = candidates(gateway, wanted, tag_of(source), tag_of(target))
        if not found:
            raise _unknown(name)
        return gateway.routes.find(best(gateway, call, found).path.encode("ascii"))

    def knows(self, gateway: Gateway, name: str) -> bool:
        """Tell whether a listing has this name, or says that it is called so too."""
        self._keep_up(gateway)
        return name in self._aliases or name.partition("@")[0] in gateway.directory.services

    def of_caller(self, gateway: Gateway, credential: Credential) -> list[Service]:
        """Return the services that a key opens, by name."""
        mine = may_call(gateway, credential, gateway.directory.services.values())
        return sorted((one for one in mine if one.status in _TO_CALL), key=lambda one: one.path)

    def aliases_of(self, gateway: Gateway, service: Service) -> tuple[str, ...]:
        """Return the further names that mean this service."""
        self._keep_up(gateway)
        return tuple(alias for alias, called_so in self._aliases.items() if service in called_so)

    def kept(self, gateway: Gateway, name: str, at: int, make: Callable[[], Any]) -> Any:
        """Return what is made of the services, anew when they change and each minute, as prices do.

        ``at`` is when it is asked for, in microseconds since the epoch.
        """
        self._keep_up(gateway)
        minute = at // 60_000_000
        made, value = self._kept.get(name, (-1, None))
        if made != minute:
            value = make()
            self._kept[name] = minute, value
        return value

    def _keep_up(self, gateway: Gateway) -> None:
        directory = gateway.directory
        if self._generation == directory.services_generation:
            return
        self._aliases, self._kept = {}, {}
        for service in directory.services.values():
            if service.status in _TO_CALL:
                for alias in service.policy.aliases:
                    self._aliases.setdefault(alias, []).append(service)
        self._generation = directory.services_generation


def tag_of(language: str | None) -> str:
    """Return a language as listings write it, ``hi-Deva``; empty for none, the text itself when nobody knows it."""
    language = language.strip() if language else ""
    return _known_tag(language) if 0 < len(language) <= _LONGEST_TAG else language


@lru_cache(4096)
def _known_tag(language: str) -> str:
    try:
        return str(parse_tag(language))
    except ValueError:
        return language


def candidates(gateway: Gateway, category: str, source: str, target: str) -> list[Service]:
    """Return the services that do this for these languages."""
    return [service for service, version in offers(gateway, category) if speaks(version, source, target)]


def offers(gateway: Gateway, category: str) -> Iterator[tuple[Service, Version]]:
    """Yield what a market has of a category, each with the version that is called when none is named."""
    for service in gateway.directory.services.values():
        if service.category == category and service.status == "published" and service.visibility == "public":
            for version in service.versions:
                if version.version == service.default_version:
                    yield service, version


def speaks(version: Version, source: str, target: str) -> bool:
    """Tell whether a version takes these languages; one that names none takes any."""
    if source and target:
        return not version.language_pairs or f"{source}>{target}" in version.language_pairs
    language = source or target
    if not language:
        return True
    if version.languages:
        return language in version.languages
    return not version.language_pairs or any(pair.startswith(f"{language}>") for pair in version.language_pairs)


def best(gateway: Gateway, call: Call, found: list[Service], policy: Policy = "price", pair: str = "") -> Service:
    """Return the one of these services that suits the caller best.

    Raise OutOfScope when his key opens none of those that he is subscribed to, and NotSubscribed when there are none.

    Those in good order come before those whose breaker is open, then the cheapest, the one that answered quickest
    lately, or the one that declares the best quality for a pair of languages, then the first by name.
    """
    mine = subscribed(gateway, call, found)
    if not mine:
        raise none_of(gateway, call, found, "this")
    return min(mine, key=lambda service: _rank(gateway, call, service, policy, pair))


def none_of(gateway: Gateway, call: Call, found: Sequence[Service], what: str) -> HaatError:
    """Return why a caller may call none of these services: his key opens none, or he is subscribed to none."""
    assert call.credential is not None
    for service in found:
        if (call.credential.application, service.id) in gateway.directory.subscriptions:
            return out_of_scope(call.credential, service)
    names = ", ".join(sorted(service.path for service in found)[:10])
    return NotSubscribed(f"The application is subscribed to none of those who do {what}: {names}.")


def subscribed(gateway: Gateway, call: Call, found: list[Service]) -> list[Service]:
    """Return those of these services that the caller may call."""
    credential = call.credential
    assert credential is not None
    return may_call(gateway, credential, found)


def may_call(gateway: Gateway, credential: Credential, found: Iterable[Service]) -> list[Service]:
    """Return those of these services that a key opens and its application is subscribed to."""
    subscriptions = gateway.directory.subscriptions
    return [one for one in found if (credential.application, one.id) in subscriptions and opens(credential, one)]


def quality_of(service: Service, pair: str) -> Quality | None:
    """Return what the version that is called when none is named declares for a pair of languages."""
    for version in service.versions:
        if version.version == service.default_version:
            for declared in version.policy.quality:
                if declared.pair == pair:
                    return declared
    return None


def in_order(gateway: Gateway, call: Call, found: list[Service]) -> list[Service]:
    """Return services as `best` would take them, also for a caller nobody knows: he has no plan yet."""
    return sorted(found, key=lambda service: _rank(gateway, call, service, "price"))


def _rank(
    gateway: Gateway, call: Call, service: Service, policy: Policy, pair: str = ""
) -> tuple[bool, Decimal, Decimal, str]:
    subscription = None
    if call.credential is not None:
        subscription = gateway.directory.subscriptions.get((call.credential.application, service.id))
    price = _price(service, subscription.plan if subscription is not None else "", call.started)
    try:
        route = gateway.routes.find(service.path.encode("ascii"))
    except HaatError:
        return True, price, price, service.path
    broken = not route.breaker.ready(call.started)
    first = price
    if policy == "latency":
        first = _latency(route)
    elif policy == "quality":
        declared = quality_of(service, pair)
        first = Decimal(1) if declared is None else -Decimal(declared.score)  # who declares nothing comes last
    return broken, first, price, service.path


def _price(service: Service, plan: str, at: int) -> Decimal:
    cards = [price for price in service.prices if price.plan in ("", plan) and price.effective_from <= at]
    own = [price for price in cards if price.plan] or cards
    return Decimal(max(own, key=lambda price: price.effective_from).unit_price) if own else Decimal(0)


def _latency(route: Route) -> Decimal:
    """Return the mean of what its calls took here, in microseconds; who was never called is worth a try."""
    calls = route.traffic.calls
    return Decimal(route.traffic.microseconds) / calls if calls > 0 else Decimal(0)


def _unknown(name: str) -> ServiceNotFound:
    shown = name[:100]
    return ServiceNotFound(
        f"No model is called {shown!r} here. A model's name is a listing's, as `vani/translate-hi-ur`, one of its "
        "aliases, or what is to be done, as `translation:hi-ur`."
    )
