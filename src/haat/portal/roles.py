"""Roles in words: what each is called, and what its permissions let somebody do."""

from __future__ import annotations

from dataclasses import dataclass

from haat.identity.model import ROLES, OrganisationKind
from haat.kernel.permissions import GRANTS, Permission, Role
from haat.language.messages import N_, gettext

_NAMES = {
    Role.PLATFORM_ADMIN: N_("Operator"),
    Role.PARTNER_ADMIN: N_("Administrator"),
    Role.PARTNER_DEVELOPER: N_("Developer"),
    Role.API_CONSUMER: N_("Member"),
}
_DEEDS = {
    Permission.PARTNERS_DECIDE: N_("Approve, reject and suspend providers"),
    Permission.PLATFORM_WATCH: N_("See the calls and figures of the whole market"),
    Permission.AUDIT_READ: N_("Read what everybody has changed"),
    Permission.DEAD_LETTERS_REPLAY: N_("Run jobs again that have failed"),
    Permission.INVOICES_RUN: N_("Close months and issue invoices"),
    Permission.SETTLEMENTS_RUN: N_("Settle providers' shares and send payouts"),
    Permission.SERVICES_SUSPEND: N_("Suspend services"),
    Permission.LEDGER_READ: N_("Read the books"),
    Permission.PLANS_GRANT: N_("Grant plans that are not listed"),
    Permission.FLAGS_EDIT: N_("Switch features on and off"),
    Permission.PLUGINS_SWITCH: N_("Switch plugins on and off"),
    Permission.CONTENT_EDIT: N_("Write and publish pages, help and announcements"),
    Permission.REVIEWS_MODERATE: N_("Hide reviews that break the rules"),
    Permission.PARTNER_EDIT: N_("Register the company as a provider"),
    Permission.SERVICES_EDIT: N_("Add services, versions and prices"),
    Permission.SERVICES_READ_OWN: N_("See how the company's services are called"),
    Permission.REVIEWS_REPLY: N_("Answer reviews of the company's services"),
    Permission.SETTLEMENTS_READ: N_("Read statements and payouts, and name the bank account"),
    Permission.MEMBERS_EDIT: N_("Invite and remove people, and change what they may do"),
    Permission.APPLICATIONS_EDIT: N_("Make applications and say where their data may go"),
    Permission.KEYS_EDIT: N_("Make, rotate and revoke keys"),
    Permission.SUBSCRIPTIONS_EDIT: N_("Subscribe to services and change plans"),
    Permission.REVIEWS_WRITE: N_("Review services that were called"),
    Permission.USAGE_READ: N_("See calls and what they cost"),
    Permission.INVOICES_READ: N_("Read invoices and the wallet"),
}


@dataclass(frozen=True, slots=True)
class RoleWords:
    """A role by its code, its name, and what it lets somebody do, in the reader's language."""

    code: str
    name: str
    deeds: tuple[str, ...]


def role_words(kind: OrganisationKind) -> list[RoleWords]:
    """Return the roles that members of an organisation can have."""
    return [
        RoleWords(role.value, role_name(role), tuple(gettext(_DEEDS[one]) for one in Permission if one in GRANTS[role]))
        for role in ROLES[kind]
    ]


def role_name(role: Role) -> str:
    return gettext(_NAMES[role])
