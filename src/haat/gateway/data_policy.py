"""Whether a service may execute an application's calls."""

from __future__ import annotations

from haat.gateway.policy import DataPolicy
from haat.gateway.snapshot import Service


def allows(policy: DataPolicy, service: Service) -> bool:
    """Tell whether a service may see this application's data; a country covers its parts."""
    if service.retains_inputs and not policy.retains_inputs:
        return False
    if not policy.regions:
        return True
    return any(service.region == region or service.region.startswith(f"{region}-") for region in policy.regions)
