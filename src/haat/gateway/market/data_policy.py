"""Whether a service may execute an application's calls.

Asked once for each key and target, before anything else could happen with a call's data: a refused
service is not called, stands in for nobody, and its answers are not given from the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway.market.policy import DataPolicy
from haat.gateway.market.snapshot import Service
from haat.kernel.errors import DataPolicyRefused

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway


def allows(policy: DataPolicy | None, service: Service) -> bool:
    """Tell whether a service may see this application's data; a country covers its parts."""
    return policy is None or (_may_keep(policy, service) and _may_go(policy, service))


def _may_keep(policy: DataPolicy, service: Service) -> bool:
    return policy.retains_inputs or not service.retains_inputs


def _may_go(policy: DataPolicy, service: Service) -> bool:
    if not policy.regions:
        return True
    return any(service.region == region or service.region.startswith(f"{region}-") for region in policy.regions)


def check_data_policy(gateway: Gateway, call: Call) -> None:
    """Refuse a service that doesn't do what the application demands: a stage of `haat.gateway.stages`."""
    assert call.credential is not None and call.route is not None
    application = gateway.directory.applications.get(call.credential.application)
    policy = application.policy.data if application is not None else None
    service = call.route.service
    if policy is None or allows(policy, service):
        return
    reasons = []
    if not _may_go(policy, service):
        reasons.append(f"its data may only go to {', '.join(policy.regions)}, and the service runs in {service.region}")
    if not _may_keep(policy, service):
        reasons.append("what it sends may not be kept, and the service keeps its inputs")
    raise DataPolicyRefused(
        f"The application's data policy forbids this service: {'; '.join(reasons)}. "
        "Choose another service in the catalog, or change the application's policy.",
        demanded={"regions": list(policy.regions), "retains_inputs": policy.retains_inputs},
        service={"region": service.region, "retains_inputs": service.retains_inputs},
    )
