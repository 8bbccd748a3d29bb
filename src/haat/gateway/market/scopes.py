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


def check_scope(gateway: Gateway, call: Call) -> None:
    """Refuse a service that the key wasn't made for: a stage of `haat.gateway.stages`."""
    assert call.credential is not None and call.route is not None
    if not opens(call.credential, call.route.service):
        opened = call.credential.only.split()
        raise OutOfScope(
            f"The key opens {', '.join(opened)} and not {call.route.service.path}: use another key of the application, "
            "or make one that opens it.",
            opens=opened,
        )
