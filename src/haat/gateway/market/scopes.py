"""Which services a key opens, of those that its application is subscribed to.

Asked once for each key and target, as `data_policy` is: what a key doesn't open it can't reach by another way either.
No service outside its scope stands in for one inside, and front doors choose among those inside alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway.market.snapshot import Credential, Service
from haat.kernel.errors import OutOfScope

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway


def opens(credential: Credential, service: Service) -> bool:
    """Tell whether a key opens a service."""
    return not credential.only or f" {service.path} " in credential.only


def require(credential: Credential, service: Service) -> None:
    """Raise OutOfScope unless a key opens a service."""
    if not opens(credential, service):
        raise out_of_scope(credential, service)


def out_of_scope(credential: Credential, service: Service) -> OutOfScope:
    """Return the refusal of a service that a key doesn't open."""
    opened = credential.only.split()
    return OutOfScope(
        f"The key opens {', '.join(opened)} and not {service.path}: use another key of the application, or make one "
        "that opens it.",
        opens=opened,
    )


def check_scope(gateway: Gateway, call: Call) -> None:
    """Refuse a service that the key wasn't made for: a stage of `haat.gateway.stages`."""
    assert call.credential is not None and call.route is not None
    require(call.credential, call.route.service)
