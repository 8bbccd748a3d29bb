"""Who may do what: four roles and one table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from haat.kernel.errors import PermissionDenied


class Role(StrEnum):
    """The four roles. A user has one role in each organisation they belong to."""

    PLATFORM_ADMIN = "platform_admin"
    PARTNER_ADMIN = "partner_admin"
    PARTNER_DEVELOPER = "partner_developer"
    API_CONSUMER = "api_consumer"


class Permission(StrEnum):
    PARTNERS_DECIDE = "partners.decide"
    PLATFORM_WATCH = "platform.watch"
    AUDIT_READ = "audit.read"
    DEAD_LETTERS_REPLAY = "dead_letters.replay"
    INVOICES_RUN = "invoices.run"
    SETTLEMENTS_RUN = "settlements.run"
    SERVICES_SUSPEND = "services.suspend"
    LEDGER_READ = "ledger.read"
    PLANS_GRANT = "plans.grant"
    FLAGS_EDIT = "flags.edit"
    PLUGINS_SWITCH = "plugins.switch"
    CONTENT_EDIT = "content.edit"
    REVIEWS_MODERATE = "reviews.moderate"
    PARTNER_EDIT = "partner.edit"
    SERVICES_EDIT = "services.edit"
    SERVICES_READ_OWN = "services.read_own"
    REVIEWS_REPLY = "reviews.reply"
    SETTLEMENTS_READ = "settlements.read"
    MEMBERS_EDIT = "members.edit"
    APPLICATIONS_EDIT = "applications.edit"
    KEYS_EDIT = "keys.edit"
    SUBSCRIPTIONS_EDIT = "subscriptions.edit"
    USAGE_READ = "usage.read"
    INVOICES_READ = "invoices.read"
    REVIEWS_WRITE = "reviews.write"


_CONSUMER = frozenset(
    {
        Permission.APPLICATIONS_EDIT,
        Permission.KEYS_EDIT,
        Permission.SUBSCRIPTIONS_EDIT,
        Permission.USAGE_READ,
        Permission.INVOICES_READ,
        Permission.REVIEWS_WRITE,
    }
)
_PARTNER_DEVELOPER = _CONSUMER | {
    Permission.SERVICES_EDIT,
    Permission.SERVICES_READ_OWN,
    Permission.REVIEWS_REPLY,
}

GRANTS: dict[Role, frozenset[Permission]] = {
    Role.PLATFORM_ADMIN: frozenset(Permission),
    Role.PARTNER_ADMIN: _PARTNER_DEVELOPER
    | {Permission.PARTNER_EDIT, Permission.MEMBERS_EDIT, Permission.SETTLEMENTS_READ},
    Role.PARTNER_DEVELOPER: _PARTNER_DEVELOPER,
    Role.API_CONSUMER: _CONSUMER | {Permission.MEMBERS_EDIT},
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: a user acting for one organisation, or the platform itself."""

    user_id: UUID | None
    org_id: UUID | None
    role: Role
    name: str = ""

    @property
    def label(self) -> str:
        """The actor as the event log names it: by reference, never by personal data."""
        return f"user/{self.user_id}" if self.user_id else "platform"

    def may(self, permission: Permission) -> bool:
        return permission in GRANTS[self.role]

    def require(self, permission: Permission) -> None:
        """Raise PermissionDenied unless the actor's role grants ``permission``."""
        if not self.may(permission):
            raise PermissionDenied(f"This needs the permission `{permission}`, which {self.role} does not have.")


PLATFORM = Actor(user_id=None, org_id=None, role=Role.PLATFORM_ADMIN, name="platform")
"""The platform acting by itself: schedules, handlers, the command line on the same machine."""
