"""The hooks a plugin can implement, in the order in which a call meets them.

A plugin is a module, or a class derived from `haat.plugins.api.Plugin`, that a distribution names
under the entry-point group ``haat``::

    [project.entry-points.haat]
    acme = "acme_haat"

or a file in ``data_dir/plugins``. Its functions carry `hookimpl`. Hooks of the gateway are plain
functions, never coroutines: they run on the gateway's loop. To refuse a call, raise a `HaatError`.
"""

from __future__ import annotations

from haat.invoices.ports import PaymentProvider, Registrar
from haat.models.hosted import Hosted
from haat.models.runtimes.port import Runtime
from haat.plugins.api import PROJECT, Answer, Arrival, Event, Request, Service, Usage, hookimpl, hookspec

__all__ = ["PROJECT", "hookimpl", "hookspec"]

# mypy: disable-error-code="empty-body"
# A specification has no body.


@hookspec
def haat_services() -> list[Hosted]:
    """Return the services this plugin lets the platform run. Import engines at the first call, not here."""


@hookspec
def haat_runtimes() -> list[Runtime]:
    """Return the runtimes this plugin brings for models. Import what they need when they open one, not here."""


@hookspec
def haat_payment_providers() -> list[PaymentProvider]:
    """Return the payment providers this plugin brings. Hooks of the control plane: import what they need when used."""


@hookspec
def haat_registrars() -> list[Registrar]:
    """Return the registrar of e-invoices this plugin brings: with one, invoices are registered before being issued."""


@hookspec
def haat_wants(service: Service) -> bool:
    """Tell whether the plugin has anything to do with a service. Asked once a route, not once a call.

    Without this hook a plugin sees every service; the calls of services that it doesn't want cost nothing.
    """


@hookspec
def haat_authenticate(call: Arrival) -> str | None:
    """Return the id of the credential that a call is made with, or None to leave it to the API key it carries.

    The credential must exist: its expiry, revocation and subscriptions hold as if its key had been sent.
    """


@hookspec
def haat_on_request(call: Request) -> None:
    """Look at an admitted request that is here whole; change its headers or body, or refuse it."""


@hookspec
def haat_select_upstream(call: Request, endpoints: tuple[str, ...]) -> str | None:
    """Return the endpoint that should execute a call, or None to leave it to the balancer.

    What is returned must be one of those given: the addresses of the version, in their declared order.
    """


@hookspec
def haat_on_response(call: Request, answer: Answer) -> None:
    """Look at an answer that is here whole; change its status, headers or body, or refuse it."""


@hookspec
def haat_on_stream(call: Request, event: Event) -> None:
    """Look at one complete event of a streamed answer; change its data, or end the stream by refusing it."""


@hookspec
def haat_on_usage(usage: Usage) -> None:
    """Look at what was recorded of a call. It can't be refused any more."""
