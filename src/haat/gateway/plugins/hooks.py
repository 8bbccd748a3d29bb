"""Plugins on the call path. Where none is registered there is nothing of this on it: no call, no test, no object."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from haat.gateway.extras import extras_of
from haat.gateway.http import cors
from haat.gateway.http.answers import REASONS, Whole
from haat.gateway.http.headers import without
from haat.gateway.http.streams import Watcher
from haat.kernel.errors import InvalidCredential, PluginFailed
from haat.plugins.api import Answer, Arrival, Event, Request, Service, Usage
from haat.plugins.registry import Loaded
from haat.plugins.running import FAILED, Hook

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route, Step
    from haat.usage.event import UsageEvent

log = logging.getLogger(__name__)

_ABOUT_US = (b"/health", b"/v2/health", b"/status", b"/metrics", b"*")
_STAND_IN = b"plugin-" + secrets.token_hex(16).encode() + b":"
"""Begins the key of a call that a plugin has identified. Nobody outside can know it."""


class Hooks:
    """The plugins of this gateway, as routes, calls and records meet them. Empty until `take` is called."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.loaded = Loaded()
        self._observers: tuple[Hook, ...] = ()

    def take(self, loaded: Loaded) -> None:
        """Go over to other plugins, between two calls. Those in flight end with the ones they began with."""
        self.loaded = loaded
        gateway = self._gateway
        gateway.authenticators = self._passing("authenticate", "haat_authenticate")
        self._observers = self._passing("usage", "haat_on_usage")
        gateway.meter.observers = (self._observe,) if self._observers else ()
        gateway.directory.renew()

    def _passing(self, here: str, hook: str) -> tuple[Hook, ...]:
        order = self.loaded.order.get(here, ())
        return tuple(self.loaded.hooks[name][hook] for name in order if name in self.loaded.hooks)

    def arrange(
        self, built_in: Mapping[str, Callable[[Gateway, Route], Step | None]], route: Route
    ) -> tuple[Step, ...]:
        """Return the steps of a route: the house's own and those of plugins that want it, in their order."""
        steps: list[Step] = [_refuse] if self.loaded.missing_guards else []
        order = self.loaded.order.get("request") or list(built_in)
        service = _service(route)
        for name in order:
            step = built_in[name](self._gateway, route) if name in built_in else self._step(name, service)
            if step is not None:
                steps.append(step)
        if route.endpoints:
            choosing = tuple(
                hook
                for hook in self._passing("upstream", "haat_select_upstream")
                if self._wants(hook.owner.name, service)
            )
            if choosing:
                steps.append(_Choice(choosing))
        return tuple(steps)

    def _step(self, name: str, service: Service) -> Step | None:
        hooks = self.loaded.hooks[name]
        return _PluginStep(hooks, service) if self._wants(name, service) else None

    def _wants(self, name: str, service: Service) -> bool:
        wants = self.loaded.hooks[name].get("haat_wants")
        if wants is None:
            return True
        try:
            answer = wants(service)
        except PluginFailed:
            return True  # a guard that can't say is asked for every call, and refuses those it fails on
        return answer is not FAILED and bool(answer)

    def _observe(self, event: UsageEvent) -> None:
        usage = Usage(event)
        for hook in self._observers:
            try:
                hook(usage)
            except Exception as error:  # it is recorded: nothing can be refused any more
                log.warning("plugin %s can't refuse a call that has ended: %s", hook.owner.name, error)


def _refuse(gateway: Gateway, call: Call) -> bool:
    raise PluginFailed(
        f"A guard that is switched on can't run: {', '.join(gateway.hooks.loaded.missing_guards)}. "
        "`haat plugins list` says why."
    )


def _service(route: Route) -> Service:
    service = route.service
    return Service(
        id=service.id,
        provider=service.provider,
        slug=service.slug,
        version=route.version.version,
        category=service.category,
        dialect=route.version.dialect,
        region=service.region,
    )


def authenticate(gateway: Gateway, call: Call) -> None:
    """Ask the plugins who is calling; the first that knows decides. Raise a plugin's refusal.

    Probes of the gateway's health and preflights of browsers are nobody's call: nobody is asked about them.
    """
    if call.target.startswith(_ABOUT_US) or cors.is_preflight(call):
        return
    lines = list(call.lines)
    if call.bearer:
        lines.append(b"Authorization: Bearer %b\r\n" % call.bearer)
    if call.api_key:
        lines.append(b"X-API-Key: %b\r\n" % call.api_key)
    arrival = Arrival(call.method.decode("ascii"), call.target.decode("latin-1"), lines)
    for hook in gateway.authenticators:
        identifier = hook(arrival)
        if identifier is None or identifier is FAILED:
            continue
        key_hash = gateway.directory.hash_of(str(identifier))
        if key_hash is None:
            raise InvalidCredential("The credential that this call was identified as does not exist any more.")
        # From here on the call is one with a key: a key that only we can say.
        call.bearer, call.api_key = _STAND_IN + str(identifier).encode(), b""
        gateway.remember_key(call.bearer, key_hash)
        return


# --- requests -----------------------------------------------------------------------------------


def _request_of(call: Call, service: Service) -> Request:
    """Return the call as plugins see it, up to date with what was changed since the last one looked."""
    extras = extras_of(call)
    if len(call.body) != 1:
        call.body = [b"".join(call.body)]
    request = extras.request
    if request is None:
        credential, subscription = call.credential, call.subscription
        assert credential is not None and subscription is not None
        request = extras.request = Request(
            list(call.lines),
            call.body[0],
            id=call.id,
            method=call.method.decode("ascii"),
            path=call.tail.decode("latin-1"),
            service=service,
            org=credential.org,
            application=credential.application,
            plan=subscription.plan,
            user=call.user.decode("utf-8", "replace"),
        )
    else:
        request.renew(list(call.lines), call.body[0])
    return request


class _PluginStep:
    """One plugin's place on the way of a request, and of its answer back."""

    __slots__ = ("_on_request", "_on_response", "_on_stream", "_owner", "_service")

    def __init__(self, hooks: Mapping[str, Hook], service: Service) -> None:
        self._owner = next(iter(hooks.values())).owner
        self._on_request = hooks.get("haat_on_request")
        self._on_response = hooks.get("haat_on_response")
        self._on_stream = hooks.get("haat_on_stream")
        self._service = service

    def __call__(self, gateway: Gateway, call: Call) -> bool:
        request = _request_of(call, self._service)
        if self._on_request is not None:
            if self._on_request(request) is FAILED:
                request.renew(list(call.lines), call.body[0])
            else:
                call.lines, call.body = list(request.headers.lines), [request.body]
                if request.tags:
                    _tag(call, request.tags)
        if self._on_response is not None or self._on_stream is not None:
            call.lines = without(call.lines, (b"accept-encoding",))  # what is to be looked into comes as it is
            guards = self._owner.fails == "closed"
            call.on_answer = [*call.on_answer, PluginAnswer(request, self._on_response, self._on_stream, guards)]
        return True


def _tag(call: Call, tags: dict[str, str]) -> None:
    added = b", ".join(f"{name}={value}".encode() for name, value in tags.items() if "," not in name + value)
    call.tags = call.tags + b", " + added if call.tags else added
    call.labelled = True
    tags.clear()


class _Choice:
    """Lets plugins say which of several endpoints executes a call."""

    __slots__ = ("_hooks",)

    def __init__(self, hooks: tuple[Hook, ...]) -> None:
        self._hooks = hooks

    def __call__(self, gateway: Gateway, call: Call) -> bool:
        route = call.route
        assert route is not None
        request = _request_of(call, _service(route))
        urls = tuple(endpoint.url for endpoint in route.endpoints)
        for hook in self._hooks:
            url = hook(request, urls)
            if url is None or url is FAILED:
                continue
            if url in urls:
                assert call.extras is not None
                call.extras.chosen = route.endpoints[urls.index(url)]
                return True
            log.warning("plugin %s chose %s, which is none of the endpoints", hook.owner.name, url)
        return True


# --- answers ------------------------------------------------------------------------------------


class PluginAnswer(Watcher):
    """What a plugin wants to do with the answer of one call."""

    __slots__ = ("_guards", "_on_response", "_on_stream", "_request")

    def __init__(self, request: Request, on_response: Hook | None, on_stream: Hook | None, guards: bool) -> None:
        self._request, self._guards = request, guards
        self._on_response, self._on_stream = on_response, on_stream

    def answered(self, call: Call, answer: Whole) -> None:
        """Show the answer to the plugin, and take over what it changed."""
        if self._on_response is None:
            return
        view = Answer(answer.status, list(answer.lines), answer.body)
        if self._on_response(self._request, view) is FAILED:
            return
        answer.lines, answer.body = view.headers.lines, view.body
        if view.status != answer.status:
            answer.status, answer.reason = view.status, REASONS.get(view.status, b"Changed")

    def missed(self, call: Call) -> None:
        """Nothing to do: the plugin was not promised an answer."""

    def look(self, event: Event) -> None:
        """Show the plugin one event of a stream."""
        assert self._on_stream is not None
        before = event.data
        if self._on_stream(self._request, event) is FAILED:
            event.data = before

    @property
    def sees_streams(self) -> bool:
        return self._on_stream is not None

    @property
    def guards(self) -> bool:
        return self._guards
