"""Four roles, one table, and nothing granted that the table does not name."""

from __future__ import annotations

from uuid import UUID

import pytest

from haat.kernel.errors import PermissionDenied
from haat.kernel.permissions import GRANTS, PLATFORM, Actor, Permission, Role

OPERATORS_ALONE = {
    Permission.PARTNERS_DECIDE,
    Permission.PLATFORM_WATCH,
    Permission.AUDIT_READ,
    Permission.DEAD_LETTERS_REPLAY,
    Permission.INVOICES_RUN,
    Permission.SETTLEMENTS_RUN,
    Permission.SERVICES_SUSPEND,
    Permission.PLANS_GRANT,
    Permission.FLAGS_EDIT,
    Permission.CONTENT_EDIT,
    Permission.REVIEWS_MODERATE,
}


def test_every_role_is_in_the_table() -> None:
    assert set(GRANTS) == set(Role)


@pytest.mark.parametrize("role", [Role.PARTNER_ADMIN, Role.PARTNER_DEVELOPER, Role.API_CONSUMER])
def test_what_is_the_operators_is_granted_to_nobody_else(role: Role) -> None:
    assert not GRANTS[role] & OPERATORS_ALONE


def test_a_consumer_can_not_offer_services() -> None:
    assert not GRANTS[Role.API_CONSUMER] & {
        Permission.PARTNER_EDIT,
        Permission.SERVICES_EDIT,
        Permission.SERVICES_READ_OWN,
        Permission.SETTLEMENTS_READ,
    }


def test_a_partner_developer_neither_registers_the_company_nor_sees_its_income() -> None:
    assert not GRANTS[Role.PARTNER_DEVELOPER] & {
        Permission.PARTNER_EDIT,
        Permission.MEMBERS_EDIT,
        Permission.SETTLEMENTS_READ,
    }


def test_an_actor_without_the_permission_is_told_which() -> None:
    actor = Actor(None, None, Role.API_CONSUMER)
    with pytest.raises(PermissionDenied, match=r"partners\.decide"):
        actor.require(Permission.PARTNERS_DECIDE)


def test_an_actor_with_the_permission_passes() -> None:
    PLATFORM.require(Permission.PARTNERS_DECIDE)


def test_an_actor_is_logged_by_reference() -> None:
    user = UUID("01900000-0000-7000-8000-000000000001")
    assert Actor(user, None, Role.API_CONSUMER, "Asha").label == f"user/{user}"
    assert PLATFORM.label == "platform"
