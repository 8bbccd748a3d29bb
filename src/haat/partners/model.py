"""A partner and the states it passes: pending → approved or rejected; approved ↔ suspended."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from haat.kernel.errors import Conflict, ValidationFailed
from haat.language.messages import _, gettext

PartnerStatus = Literal["pending", "approved", "rejected", "suspended"]
BUSINESS_TYPES = (
    "company",
    "llp",
    "partnership",
    "proprietorship",
    "society",
    "university",
    "government",
    "individual",
)
_SLUG = re.compile(r"[a-z0-9](?:-?[a-z0-9]){0,39}")
_TRANSITIONS: dict[PartnerStatus, frozenset[PartnerStatus]] = {
    "pending": frozenset({"approved", "rejected"}),
    "rejected": frozenset({"pending"}),
    "approved": frozenset({"suspended"}),
    "suspended": frozenset({"approved"}),
}


@dataclass(frozen=True, slots=True)
class Partner:
    """A provider. ``slug`` is its name in addresses, ``allowed_networks`` what the operator opened."""

    org_id: UUID
    slug: str
    company_name: str
    email: str
    contact_person: str
    business_type: str
    gstin: str | None
    status: PartnerStatus
    reason: str
    allowed_networks: tuple[str, ...]
    created_at: datetime
    decided_at: datetime | None


def check_slug(slug: str, field: str = "slug") -> str:
    """Return a name fit for addresses; raise ValidationFailed."""
    slug = slug.strip()
    if not _SLUG.fullmatch(slug):
        message = _("Use up to 40 small letters and digits, with single hyphens between them.")
        raise ValidationFailed(errors=[{"field": field, "message": message}])
    return slug


def check_transition(present: PartnerStatus, wanted: PartnerStatus) -> None:
    """Raise Conflict when a partner can't go from one state to the other."""
    if wanted not in _TRANSITIONS[present]:
        raise Conflict(
            _(
                "A partner that is %(present)s can't become %(wanted)s.",
                present=gettext(present),
                wanted=gettext(wanted),
            )
        )


def check_networks(networks: list[str]) -> tuple[str, ...]:
    """Return networks in canonical CIDR form; raise ValidationFailed for what is none."""
    try:
        return tuple(str(ipaddress.ip_network(network.strip())) for network in networks)
    except ValueError as error:
        raise ValidationFailed(errors=[{"field": "networks", "message": f"{error}."}]) from error
