"""Which version executes a call of a divided service, and what its answer and its record say."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from msgspec import structs

from gateway.rig import APP, ORG, MakeMarket, Market, answer, close_market, open_market
from gateway.rollout.rig import ROLLOUT, ask, change, divide, tell_versions
from haat.gateway.market.policy import CachePolicy, Share
from haat.gateway.market.snapshot import Price
from haat.infra.keyring import Keyring
from haat.kernel.bucketing import bucket_of
from haat.rollouts.rule import Rule


def by_bucket(percent: float, user: str) -> str:
    return "candidate" if bucket_of(ROLLOUT, f"{ORG}/{user}") < percent * 100 else "control"


async def test_users_are_divided_by_their_buckets_and_stay_where_they_are(market: Market) -> None:
    tell_versions(market)
    divide(market, 30)
    users = [f"user-{number}" for number in range(40)]
    for _ in range(2):
        for user in users:
            response = await ask(market, user)
            variant = by_bucket(30, user)
            assert response.header("x-haat-variant") == variant
            assert (
                response.header("api-version") == response.json()["version"] == ("2" if variant == "candidate" else "1")
            )
            assert response.header("x-haat-served-by") == f"acme/echo@{response.json()['version']}"
    assert {by_bucket(30, user) for user in users} == {"candidate", "control"}


async def test_a_share_that_grows_keeps_those_it_had(market: Market) -> None:
    tell_versions(market)
    had: set[str] = set()
    for percent in (1, 20, 60, 100):
        divide(market, percent)
        now = {user for user in map(str, range(30)) if (await ask(market, user)).json()["version"] == "2"}
        assert had <= now
        had = now
    assert len(had) == 30


async def test_stickiness_survives_a_restart(tmp_path: Path, keyring: Keyring) -> None:
    seen = []
    for home in ("one", "two"):
        market = await open_market(tmp_path / home, keyring)
        tell_versions(market)
        divide(market, 50)
        seen.append([(await ask(market, str(user))).header("x-haat-variant") for user in range(20)])
        await close_market(market)
    assert seen[0] == seen[1]


async def test_without_a_user_the_application_is_one(market: Market) -> None:
    tell_versions(market)
    divide(market, 50)
    expected = "candidate" if bucket_of(ROLLOUT, APP) < 5000 else "control"
    assert {(await ask(market)).header("x-haat-variant") for _ in range(5)} == {expected}


async def test_a_version_that_is_asked_for_wins_and_is_part_of_nothing(market: Market) -> None:
    tell_versions(market)
    divide(market, 100)
    for path, header in (
        ("/v1/services/acme/echo@1/invoke", ()),
        ("/v1/services/acme/echo/invoke", ("API-Version: 1",)),
    ):
        response = await ask(market, "u", path, *header)
        assert (response.json()["version"], response.header("x-haat-variant")) == ("1", None)
    assert [(event.rollout, event.arm) for event in market.events()] == [("", "")] * 2


async def test_the_record_says_which_version_it_was_and_why(market: Market) -> None:
    tell_versions(market)
    divide(market, 100)
    await ask(market, "asha")
    event = await market.settled_event()
    assert (event.version, event.rollout, event.arm, event.mode) == ("2", ROLLOUT, "candidate", "live")
    assert (event.units, event.subscription, event.user) == ({"requests": "1"}, f"sub-{APP}-acme/echo", "asha")


async def test_a_call_of_a_candidate_costs_what_any_call_costs(market: Market) -> None:
    tell_versions(market)
    change(market, prices=(Price("", "requests", "0.25", "0", 0),))
    divide(market, 100)
    response = await ask(market)
    charged = response.header("x-haat-charge")
    assert charged is not None and Decimal(charged.split()[0]) == Decimal("0.25")
    allowance = market.gateway.limits
    assert allowance is not None
    assert response.header("x-ratelimit-remaining") == "999"


async def test_allowed_users_get_the_candidate_and_blocked_ones_do_not(market: Market) -> None:
    tell_versions(market)
    divide(market, 0, allow_users=("tester", "both"), block_users=("both",))
    assert (await ask(market, "tester")).header("x-haat-variant") == "candidate"
    assert (await ask(market, "both")).header("x-haat-variant") == "control"
    assert (await ask(market, "somebody")).header("x-haat-variant") == "control"
    divide(market, 100, block_users=("shy",), block_applications=())
    assert (await ask(market, "shy")).header("x-haat-variant") == "control"
    divide(market, 100, block_applications=(APP,))
    assert (await ask(market, "somebody")).header("x-haat-variant") == "control"
    divide(market, 0, allow_applications=(APP,))
    assert (await ask(market)).header("x-haat-variant") == "candidate"


async def test_several_variants_take_their_shares_one_after_another(market: Market) -> None:
    tell_versions(market)
    divide(market, shares=(Share("a", "2", 2000), Share("b", "1", 3000)))
    for user in map(str, range(30)):
        place = bucket_of(ROLLOUT, f"{ORG}/{user}")
        expected = "a" if place < 2000 else "b" if place < 5000 else "control"
        assert (await ask(market, user)).header("x-haat-variant") == expected


async def test_test_keys_are_not_divided(market: Market) -> None:
    divide(market, 100)
    key = market.add_key(mode="test")
    response = await market.call("POST", "/v1/services/acme/echo/invoke", b"{}", key=key)
    assert (response.header("x-haat-variant"), response.header("api-version")) == (None, "1")
    assert not market.provider.requests


async def test_a_candidate_that_is_gone_or_over_leaves_its_share_to_the_control(market: Market) -> None:
    tell_versions(market)
    divide(market, shares=(Share("candidate", "9", 10_000),))
    assert (await ask(market)).header("x-haat-variant") == "control"
    service = market.gateway.directory.services["acme/echo"]
    first, second = service.versions
    over = structs.replace(second, policy=structs.replace(second.policy, sunset_at=1))
    divide(market, 100)
    change(market, versions=(first, over))
    assert (await ask(market)).header("x-haat-variant") == "control"
    other = structs.replace(second, dialect="openai")
    change(market, versions=(first, other))
    assert (await ask(market)).header("x-haat-variant") == "control"


async def test_an_end_of_the_division_is_heeded_at_once(market: Market) -> None:
    tell_versions(market)
    divide(market, 100)
    assert (await ask(market)).json()["version"] == "2"
    change(market, division=None)
    response = await ask(market)
    assert (response.json()["version"], response.header("x-haat-variant")) == ("1", None)


async def test_a_kept_answer_of_one_variant_never_answers_the_other(make_market: MakeMarket) -> None:
    market = await make_market()
    tell_versions(market)
    market.add_service("kept", cache=CachePolicy())
    divide(market, 50, slug="kept")
    for _ in range(2):
        for user in map(str, range(12)):
            response = await ask(market, user, "/v1/services/acme/kept/invoke")
            expected = "2" if by_bucket(50, user) == "candidate" else "1"
            assert (response.json()["version"], response.header("api-version")) == (expected, expected)
    assert len(market.provider.requests) == 2


async def test_an_idempotency_key_gives_its_answer_again_whoever_would_execute_it_now(market: Market) -> None:
    tell_versions(market)
    divide(market, 100)
    first = await ask(market, "", "/v1/services/acme/echo/invoke", 'Idempotency-Key: "k1"')
    divide(market, 0)
    again = await ask(market, "", "/v1/services/acme/echo/invoke", 'Idempotency-Key: "k1"')
    assert first.json() == again.json() == {"version": "2"}
    assert again.header("idempotency-replayed") == "true"
    assert len(market.provider.requests) == 1


async def test_a_version_that_fails_is_left_at_once_and_the_event_log_learns_why(market: Market) -> None:
    tell_versions(market, two=answer(500, b"{}"))
    divide(market, 50, rule=Rule(min_calls=20))
    users = [str(number) for number in range(200)]
    for user in users[:60]:
        await ask(market, user)
    failed = [event for event in market.events() if event.status == 500]
    assert 20 <= len(failed) <= 22
    assert {(await ask(market, user)).header("x-haat-variant") for user in users} == {"control"}
    [told] = market.gateway.endpoints.notices
    assert (told.kind, told.stream) == ("rollout.tripped", f"rollout/{ROLLOUT}")
    assert told.data["version"] == "2" and "100.0%" in str(told.data["reason"])
    change(market, reason="another change")  # routes are made anew; what was left stays left
    assert (await ask(market, users[0])).header("x-haat-variant") == "control"


async def test_failures_that_both_versions_have_send_nobody_back(market: Market) -> None:
    market.provider.behaviour = answer(400, b"{}")
    divide(market, 50)
    for user in map(str, range(120)):
        await ask(market, user)
    assert not market.gateway.endpoints.notices


async def test_what_the_cache_answers_and_what_is_refused_says_nothing_of_a_version(market: Market) -> None:
    tell_versions(market)
    market.add_service("kept", cache=CachePolicy())
    divide(market, 100, slug="kept")
    for _ in range(5):
        await ask(market, "u", "/v1/services/acme/kept/invoke")
    route = market.gateway.routes.find(b"acme/kept")
    assert route.division is not None
    arm = route.division.shares[0]
    assert arm.watch.of("candidate").total.calls == 1
