"""Entities of identity and the rules that need no database."""

from __future__ import annotations

import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from haat.kernel.errors import InvalidCredential, ValidationFailed
from haat.kernel.permissions import GRANTS, Actor, Permission, Role
from haat.kernel.text import is_readable, is_storable, tidy
from haat.language import Tag
from haat.language.messages import INTERFACE, _, gettext

OrganisationKind = Literal["operator", "provider", "consumer"]
KeyMode = Literal["live", "test"]

ROLES: dict[OrganisationKind, tuple[Role, ...]] = {
    "operator": (Role.PLATFORM_ADMIN,),
    "provider": (Role.PARTNER_ADMIN, Role.PARTNER_DEVELOPER),
    "consumer": (Role.API_CONSUMER,),
}
"""The roles that members of an organisation can have; who makes it gets the first."""


@dataclass(frozen=True, slots=True)
class Organisation:
    """A tenant. ``state_code`` is the two-digit GST State code, ``zone`` an IANA time zone."""

    id: UUID
    name: str
    kind: OrganisationKind
    address: str
    state_code: str | None
    gstin: str | None
    zone: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A person with an account. ``language`` is the one they want to be spoken to in, if they chose one."""

    id: UUID
    email: str
    name: str
    created_at: datetime
    language: Tag | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's place in an organisation, with both names at hand for a menu."""

    user_id: UUID
    org_id: UUID
    org_name: str
    org_kind: OrganisationKind
    role: Role
    signed_in_at: datetime | None = None
    """When the user's newest session for this organisation began."""


@dataclass(frozen=True, slots=True)
class Member:
    """A person of an organisation, as its members see them."""

    user_id: UUID
    name: str
    email: str
    role: Role
    joined_at: datetime
    signed_in_at: datetime | None

    @property
    def label(self) -> str:
        """The member as the event log names who did something."""
        return Actor(self.user_id, None, self.role).label

    def may(self, permission: Permission) -> bool:
        return permission in GRANTS[self.role]


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation that was neither accepted nor revoked; ``mailed`` is how often it was sent."""

    id: UUID
    org_id: UUID
    email: str
    role: Role
    mailed: int
    invited_by: UUID | None
    created_at: datetime
    expires_at: datetime

    def is_open(self, at: datetime) -> bool:
        """Tell whether its newest link can be used at an instant."""
        return self.expires_at > at


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in user acting for one organisation; ``token`` is what the browser or program holds."""

    id: UUID
    token: str
    user: User
    org_id: UUID
    role: Role
    expires_at: datetime

    @property
    def actor(self) -> Actor:
        return Actor(self.user.id, self.org_id, self.role, self.user.name)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Where somebody is signed in: families of browser and system, both empty for a program.

    ``seen_at`` is late by an hour at most. ``current`` marks the session that asks.
    """

    id: UUID
    org_name: str
    browser: str
    system: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    current: bool


@dataclass(frozen=True, slots=True)
class Application:
    """``policy`` is what the gateway is told about its calls: `identity.policy`, without what is as usual."""

    id: UUID
    org_id: UUID
    name: str
    created_at: datetime
    policy: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Credential:
    """An API key as it is stored: never the key itself, only its prefix and last four letters."""

    id: UUID
    org_id: UUID
    application_id: UUID
    name: str
    scheme: str
    prefix: str
    last_four: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    rotated_to: UUID | None
    last_used_at: datetime | None

    @property
    def services(self) -> list[str]:
        """The paths of the services that it opens; none when it opens every one that its application may call."""
        return [scope.removeprefix(f"{INVOKE}:") for scope in self.scopes if scope.startswith(f"{INVOKE}:")]

    def is_active(self, at: datetime) -> bool:
        """Tell whether the key opens anything at an instant."""
        return (self.revoked_at is None or self.revoked_at > at) and (self.expires_at is None or self.expires_at > at)


INVOKE = "invoke"
"""The scope of a key that opens every service of its application; ``invoke:provider/service`` opens that one."""
MOST_SCOPES = 50
_SERVICE_SCOPE = re.compile(r"invoke:[a-z0-9-]{1,40}/[a-z0-9-]{1,80}")


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Return the scopes of a new key, each once; raise ValidationFailed unless it opens all services or some."""
    found = tuple(dict.fromkeys(scopes))
    if found == (INVOKE,):
        return found
    if 1 <= len(found) <= MOST_SCOPES and all(map(_SERVICE_SCOPE.fullmatch, found)):
        return found
    message = _("Give `invoke`, or 1 to %(most)s services as `invoke:provider/service`.", most=MOST_SCOPES)
    raise ValidationFailed(errors=[{"field": "scopes", "message": message}])


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whom an API key stands for. ``policy`` is what the application demands, as in `Application`."""

    org_id: UUID
    application_id: UUID
    policy: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key, shown once."""

    key: str
    credential: Credential


# --- API keys: haat_live_ + 22 random base62 characters (131 bits) + 6 of checksum --------------

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_LENGTH = 22
_CHECKSUM_LENGTH = 6
KEY_PREFIXES: dict[str, KeyMode] = {"haat_live_": "live", "haat_test_": "test"}
TEST_PREFIX = b"haat_test_"
"""As a key comes with a call. It is a part of what is hashed: nobody's key can be given another."""
_KEY_LENGTH = len("haat_live_") + _RANDOM_LENGTH + _CHECKSUM_LENGTH


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    letters = ""
    for _index in range(_CHECKSUM_LENGTH):
        number, rest = divmod(number, 62)
        letters = _BASE62[rest] + letters
    return letters


def make_key(mode: KeyMode = "live") -> str:
    """Return a new API key; its checksum lets scanners confirm a leak without asking us."""
    return key_of(secrets.randbelow(62**_RANDOM_LENGTH), mode)


def key_of(number: int, mode: KeyMode) -> str:
    """Return the API key that a secret number makes."""
    letters = ""
    for _index in range(_RANDOM_LENGTH):
        number, rest = divmod(number, 62)
        letters = _BASE62[rest] + letters
    body = f"haat_{mode}_{letters}"
    return body + _checksum(body)


def parse_key(key: str) -> KeyMode:
    """Return the mode of a well-formed key; raise InvalidCredential without any look-up otherwise."""
    mode = KEY_PREFIXES.get(key[:10])
    if mode is None or len(key) != _KEY_LENGTH or not (key.isascii() and key[10:].isalnum()):
        raise InvalidCredential
    if _checksum(key[:-_CHECKSUM_LENGTH]) != key[-_CHECKSUM_LENGTH:]:
        raise InvalidCredential(_("The API key's checksum does not fit: part of the key is missing or mistyped."))
    return mode


def key_prefix(key: str) -> str:
    """Return what of a key may be shown: its scheme and the first four random characters."""
    return key[:14]


# --- what people type --------------------------------------------------------------------------

_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f-\x9f<>,;:\"()\[\]\\]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
MIN_PASSWORD = 10
MAX_PASSWORD = 256


def check_email(email: str) -> str:
    """Return the address without surrounding space; raise ValidationFailed when it can't be one."""
    email = tidy(email)
    if not _EMAIL.fullmatch(email) or ".." in email or not is_readable(email):
        raise ValidationFailed(
            errors=[{"field": "email", "message": _("Enter an e-mail address such as name@example.in.")}]
        )
    return email


def check_password(password: str) -> str:
    """Length is the rule that helps (NIST SP 800-63B, 5.1.1.2)."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD or not is_storable(password):
        message = _(
            "Use %(min_password)s to %(max_password)s characters; a short sentence is good.",
            min_password=MIN_PASSWORD,
            max_password=MAX_PASSWORD,
        )
        raise ValidationFailed(errors=[{"field": "password", "message": message}])
    return password


def check_language(code: str) -> Tag:
    """Return a language of the interface such as ``hi-Deva``; raise ValidationFailed for what is none."""
    for tag in INTERFACE:
        if str(tag) == code:
            return tag
    raise ValidationFailed(errors=[{"field": "language", "message": gettext("Choose a language from the list.")}])


def check_role(role: str, kind: OrganisationKind) -> Role:
    """Return a role that members of such an organisation can have; raise ValidationFailed."""
    for one in ROLES[kind]:
        if one.value == role:
            return one
    raise ValidationFailed(errors=[{"field": "role", "message": gettext("Choose a role from the list.")}])


def check_state(code: str) -> str:
    """Return a two-digit GST State code; raise ValidationFailed for what is none."""
    if not re.fullmatch("[0-9]{2}", code):
        raise ValidationFailed(errors=[{"field": "state_code", "message": _("Choose a State from the list.")}])
    return code
