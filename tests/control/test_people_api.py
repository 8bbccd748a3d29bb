"""Members, invitations, sessions and one's account over the control API."""

from __future__ import annotations

from haat.infra.postgres import PLATFORM_SCOPE
from market import PASSWORD
from office import Control

NEW = "a newer and longer password"


async def test_somebody_is_invited_joins_and_is_removed(control: Control) -> None:
    host = await control.market.provider()
    body = {"email": "ravi@example.in", "role": "partner_developer"}
    made = await control.ask("POST", "/invitations", body, actor=host)
    assert made.status_code == 201 and "token" not in made.text
    [invitation] = await control.platform.members.invitations(host)
    token = control.platform.members.token_of(invitation)
    assert (await control.ask("GET", "/invitations", actor=host)).json()[0]["email"] == "ravi@example.in"
    assert (await control.ask("POST", "/invitations/accept", {"token": token})).status_code == 422
    joined = await control.ask("POST", "/invitations/accept", {"token": token, "password": PASSWORD, "name": "Ravi"})
    assert joined.status_code == 201 and joined.json()["role"] == "partner_developer"
    over = await control.ask("POST", "/invitations/accept", {"token": token, "password": PASSWORD})
    assert (over.status_code, over.json()["code"]) == (410, "LINK_OVER")
    members = (await control.ask("GET", "/members", actor=host)).json()
    assert [(one["name"], one["role"]) for one in members][1] == ("Ravi", "partner_developer")
    path = f"/members/{members[1]['user_id']}"
    assert (await control.ask("PUT", f"{path}/role", {"role": "partner_admin"}, actor=host)).status_code == 204
    assert (await control.ask("DELETE", path, actor=host)).status_code == 204
    headers = {"Authorization": f"Bearer {joined.json()['token']}"}
    assert (await control.ask("GET", "/me", headers=headers)).status_code == 401
    assert (await control.ask("DELETE", f"/members/{host.user_id}", actor=host)).status_code == 409


async def test_who_is_signed_in_joins_with_the_token_alone(control: Control) -> None:
    host, guest = await control.market.provider(), await control.market.consumer(email="asha@example.in")
    invitation = await control.platform.members.invite(host, "asha@example.in", "partner_admin")
    body = {"token": control.platform.members.token_of(invitation)}
    joined = await control.ask("POST", "/invitations/accept", body, actor=guest)
    assert joined.status_code == 201 and joined.json()["org_id"] == str(host.org_id)
    headers = {"Authorization": f"Bearer {joined.json()['token']}"}
    mine = await control.ask("GET", "/me/organisations", headers=headers)
    assert {one["org_id"] for one in mine.json()} == {str(host.org_id), str(guest.org_id)}
    switched = await control.ask("POST", "/sessions/switch", {"org_id": str(guest.org_id)}, headers=headers)
    assert switched.status_code == 201 and switched.json()["org_id"] == str(guest.org_id)
    assert (await control.ask("GET", "/me", headers=headers)).status_code == 401  # the session before is over


async def test_sessions_and_account_are_ones_own(control: Control) -> None:
    actor, stranger = await control.market.consumer(email="asha@example.in"), await control.market.consumer()
    here, there = await control.token(actor), await control.token(actor)
    headers = {"Authorization": f"Bearer {here}"}
    listed = (await control.ask("GET", "/sessions", headers=headers)).json()
    assert len(listed) == 2 and [one["current"] for one in listed] == [True, False]
    assert (await control.ask("DELETE", f"/sessions/{listed[1]['id']}", actor=stranger)).status_code == 404
    assert (await control.ask("DELETE", f"/sessions/{listed[1]['id']}", headers=headers)).status_code == 204
    assert (await control.ask("GET", "/me", headers={"Authorization": f"Bearer {there}"})).status_code == 401
    await control.token(actor)
    assert (await control.ask("DELETE", "/sessions", headers=headers)).status_code == 204
    assert len((await control.ask("GET", "/sessions", headers=headers)).json()) == 1
    changed = await control.ask("PATCH", "/me/account", {"language": "hi-Deva"}, headers=headers)
    assert changed.json()["language"] == "hi-Deva" and changed.json()["email"] == "asha@example.in"
    assert (await control.ask("GET", "/me/account", headers=headers)).json() == changed.json()


async def test_a_password_is_changed_and_a_forgotten_one_replaced(control: Control) -> None:
    actor = await control.market.consumer(email="asha@example.in")
    body = {"present_password": PASSWORD, "password": NEW}
    changed = await control.ask("PUT", "/me/password", body, actor=actor)
    assert changed.status_code == 200 and changed.json()["token"]
    asked = [await control.ask("POST", "/password-resets", {"email": f"{name}@example.in"}) for name in ("asha", "no")]
    assert {(one.status_code, one.content) for one in asked} == {(202, b"")}
    async with control.platform.db.transaction(PLATFORM_SCOPE) as connection:
        row = await (
            await connection.execute("SELECT id FROM password_resets WHERE email = 'asha@example.in'")
        ).fetchone()
    assert row is not None
    found = await control.platform.access.asked_reset(row["id"])
    assert found is not None
    redeemed = {"token": found[1], "password": PASSWORD}
    assert (await control.ask("POST", "/password-resets/redeem", redeemed)).status_code == 204
    assert (await control.ask("POST", "/password-resets/redeem", redeemed)).status_code == 410
    body = {"email": "asha@example.in", "password": PASSWORD}
    assert (await control.ask("POST", "/sessions", body)).status_code == 201
