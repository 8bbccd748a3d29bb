"""The port `Translator`: what every one of them keeps to, the fake and the gateway before real engines alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from msgspec import structs

from gateway.rig import APP, Request, answer, close_market, open_market
from gateway.rig import Market as Gateway
from haat.content.translator import APPLICATION, GatewayTranslator, Translator
from haat.gateway.limits.registry import PlanLimits
from haat.gateway.market.policy import ServicePolicy
from haat.identity.model import Application, IssuedKey
from haat.infra.keyring import Keyring
from haat.kernel.clock import SetClock
from haat.kernel.errors import NotSubscribed, ProviderFailed, ProviderUnavailable, UnsupportedLanguage
from haat.kernel.permissions import PLATFORM, Actor, Role
from haat.language import Tag, detect_script
from haat.models.task import parse_call
from haat.plugins.manager import hosted_services
from market import Market

from .conftest import HINDI, TAMIL, URDU, Shouter

ENGINE = "vani/translate-hi-ur"
TEXTS = ["आज मौसम बहुत अच्छा है।", "आपका नाम क्या है?", "लाहौर"]
EDITOR = Actor(UUID(int=1), UUID(int=2), Role.PLATFORM_ADMIN)
Contract = tuple[Translator, tuple[Tag, Tag]]


class OneKey:
    """An identity whose operator has the gateway's key."""

    def __init__(self, key: str) -> None:
        self.key = key

    async def applications(self, actor: Actor) -> list[Any]:
        return [Application(UUID(APP), actor.org_id or UUID(int=2), APPLICATION, None)]  # type: ignore[arg-type]  # no time here

    async def create_key(self, actor: Actor, application: UUID, **_: Any) -> IssuedKey:
        return IssuedKey(self.key, None)  # type: ignore[arg-type]  # only the key is asked for


@pytest.fixture
async def gateway(tmp_path: Path, keyring: Keyring) -> AsyncIterator[Gateway]:
    """The gateway before the real engine for Hindi and Urdu, as the platform lists it, with nobody subscribed."""
    hosted = hosted_services()[ENGINE]
    assert hosted.missing() is None, hosted.missing()
    market = await open_market(tmp_path, keyring)

    async def run(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        items, config = parse_call(hosted, request.body)
        outputs, units = await asyncio.to_thread(hosted.invoke, items, config)
        usage = "; ".join(f"{unit}={count}" for unit, count in units.items())
        writer.write(answer(200, json.dumps({"output": outputs}).encode(), f"X-Haat-Usage: {usage}"))
        await writer.drain()
        return True

    market.add_service(
        hosted.slug,
        base=f"/{ENGINE}",
        dialect="task",
        category=hosted.category,
        unit=hosted.unit,
        languages=hosted.languages,
        language_pairs=hosted.language_pairs,
        subscribed=None,
    )
    listed = market.gateway.directory.services[f"acme/{hosted.slug}"]
    own = structs.replace(listed, provider="vani", policy=ServicePolicy(capability=hosted.capability))
    market.gateway.directory.put_service(own.id, own)
    market.provider.behaviour = run
    yield market
    await close_market(market)


def of(market: Gateway, clock: SetClock) -> GatewayTranslator:
    identity: Any = OneKey(market.key)
    return GatewayTranslator(identity, clock, f"http://127.0.0.1:{market.port}")


# --- the contract -----------------------------------------------------------------------------------


@pytest.fixture(params=["fake", "gateway"])
def translator(request: pytest.FixtureRequest, clock: SetClock) -> Contract:
    """A translator, and a pair that it knows."""
    if request.param == "fake":
        return Shouter(frozenset({(HINDI, URDU)})), (HINDI, URDU)
    market: Gateway = request.getfixturevalue("gateway")
    market.subscribe(ENGINE, PlanLimits())
    return of(market, clock), (HINDI, URDU)


async def test_each_text_has_one_translation_in_its_place_and_its_maker_is_named(translator: Contract) -> None:
    one, (source, target) = translator
    made = await one.translate(EDITOR, TEXTS, source, target)
    assert len(made.texts) == len(TEXTS) and all(made.texts)
    alone = [(await one.translate(EDITOR, [text], source, target)).texts[0] for text in TEXTS]
    assert list(made.texts) == alone
    assert made.services and all("/" in service for service in made.services)


async def test_many_texts_are_translated_too(translator: Contract) -> None:
    one, (source, target) = translator
    assert (await one.translate(EDITOR, TEXTS * 17, source, target)).texts == (
        await one.translate(EDITOR, TEXTS, source, target)
    ).texts * 17


async def test_a_pair_that_nobody_has_is_named_in_the_refusal(translator: Contract) -> None:
    one, (source, _) = translator
    with pytest.raises(UnsupportedLanguage, match="ta-Taml"):
        await one.translate(EDITOR, TEXTS, source, TAMIL)


# --- the gateway's own ------------------------------------------------------------------------------


async def test_the_market_translates_into_the_targets_script(gateway: Gateway, clock: SetClock) -> None:
    gateway.subscribe(ENGINE, PlanLimits())
    made = await of(gateway, clock).translate(EDITOR, TEXTS[:1], HINDI, URDU)
    assert made.texts == ("آج موسم بہت اچھا ہے۔",) and made.services == (ENGINE,)
    assert detect_script(made.texts[0]) == "Arab"
    assert [event.tags for event in gateway.events()] == [{"from": "content"}]


async def test_who_is_not_subscribed_is_told_which_application_to_subscribe_to_whom(
    gateway: Gateway, clock: SetClock
) -> None:
    with pytest.raises(NotSubscribed, match=rf"Hindi \(hi-Deva\) to Urdu \(ur-Arab\).*{APPLICATION}.*{ENGINE}"):
        await of(gateway, clock).translate(EDITOR, TEXTS, HINDI, URDU)


async def test_a_gateway_that_does_not_answer_is_said_so(clock: SetClock) -> None:
    identity: Any = OneKey("x")
    with pytest.raises(ProviderUnavailable, match="gateway did not answer"):
        await GatewayTranslator(identity, clock, "http://127.0.0.1:1").translate(EDITOR, TEXTS, HINDI, URDU)


Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


def good(request: httpx.Request) -> httpx.Response:
    texts = json.loads(request.content)["text"]
    return httpx.Response(200, json={"translations": texts, "stages": [{"service": "acme/one"}]})


async def test_a_key_of_the_operators_own_application_is_made_once_for_a_quarter_of_an_hour(market: Market) -> None:
    operator = await market.operator()
    keys: list[str] = []

    def note(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["authorization"].removeprefix("Bearer "))
        return good(request)

    translator = GatewayTranslator(market.identity, market.clock, "http://gateway", httpx.MockTransport(note))
    for actor in (operator, PLATFORM):
        await translator.translate(actor, TEXTS, HINDI, URDU)
    market.clock.advance(seconds=15 * 60)
    await translator.translate(PLATFORM, TEXTS, HINDI, URDU)
    assert keys[0] == keys[1] != keys[2]
    [application] = await market.identity.applications(operator)
    assert application.name == APPLICATION
    assert (await market.identity.holder_of(keys[2])).application_id == application.id
    assert len(await market.identity.keys(operator, application.id)) == 2


async def test_a_key_that_has_not_reached_the_gateway_yet_is_waited_for(
    clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [httpx.Response(401, json={"code": "INVALID_CREDENTIAL"}), None]
    monkeypatch.setattr("haat.content.translator._FEED_PAUSE", 0)
    identity: Any = OneKey("x")
    transport = httpx.MockTransport(lambda request: answers.pop(0) or good(request))
    translator = GatewayTranslator(identity, clock, "http://gateway", transport)
    assert (await translator.translate(EDITOR, TEXTS, HINDI, URDU)).texts == tuple(TEXTS)


@pytest.mark.parametrize(
    ("response", "error", "said"),
    [
        (httpx.Response(429, json={"code": "RATE_LIMITED", "detail": "Wait 3 s."}), ProviderFailed, "Wait 3 s"),
        (httpx.Response(500, json={}), ProviderFailed, "no reason"),
        (httpx.Response(502, text="<html>"), ProviderUnavailable, "did not answer"),
        (httpx.Response(200, json={"translations": ["one"], "stages": []}), ProviderFailed, "Nothing was translated"),
        (httpx.Response(200, json=["what"]), ProviderUnavailable, "did not answer"),
        (
            httpx.Response(401, json={"code": "REVOKED_CREDENTIAL", "detail": "It was revoked."}),
            ProviderFailed,
            "revoked",
        ),
    ],
)
async def test_any_other_refusal_is_told_in_its_own_words(
    clock: SetClock, response: httpx.Response, error: type[Exception], said: str
) -> None:
    identity: Any = OneKey("x")
    transport = httpx.MockTransport(lambda _: response)
    with pytest.raises(error, match=said):
        await GatewayTranslator(identity, clock, "http://gateway", transport).translate(EDITOR, TEXTS, HINDI, URDU)
