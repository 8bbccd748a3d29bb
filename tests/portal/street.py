"""A furnished market for the portal's tests: two providers, their services, a developer, calls and money."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from haat.app import Platform
from haat.catalog import store as catalog_store
from haat.catalog.drafts import ServiceDraft
from haat.catalog.model import Listing
from haat.flags.draft import FlagDraft
from haat.identity.model import Application, IssuedKey
from haat.infra import dead_letters
from haat.infra.postgres import PLATFORM_SCOPE, tenant
from haat.invoices.service import Invoice
from haat.kernel.permissions import PLATFORM, Actor
from haat.subscriptions.model import Subscription
from haat.usage import intake
from haat.usage.event import VERSION, Outcome, Timings, UsageEvent
from haat.usage.intake import Record
from haat.wallet.model import Mode

PASSWORD = "a street with many stalls"
DEVELOPER = "dev@sabzi.example"
PROVIDER = "desk@vani.example"
OPERATOR = "desk@operator.example"
STRANGER = "someone@else.example"

_TEXT = {"input": [{"text": "आप कैसे हैं?"}], "config": {}}

SERVICES: list[dict[str, Any]] = [
    {"provider": "vani", "slug": "hindi-urdu", "name": "Hindi and Urdu", "category": "translation",
     "unit": "characters", "price": "0.0002", "free": "10000", "pairs": ["hi-Deva>ur-Arab", "ur-Arab>hi-Deva"],
     "quality": [{"pair": "hi-Deva>ur-Arab", "score": "41.3", "test_set": "FLORES-200", "date": "2026-05-01"}],
     "summary": "Translates between Hindi and Urdu, sentence by sentence, by rules you can read.",
     "body": {"input": [{"text": "आप कैसे हैं?"}], "config": {"source": "hi-Deva", "target": "ur-Arab"}}},
    {"provider": "akshara", "slug": "transliterate", "name": "Transliteration", "category": "transliteration",
     "unit": "characters", "price": "0.00005", "free": "50000",
     "languages": ["hi-Deva", "bn-Beng", "ta-Taml", "te-Telu", "mr-Deva", "gu-Gujr", "kn-Knda", "ml-Mlym", "pa-Guru"],
     "summary": "Writes a text in another Indic script or in Latin letters, and back.",
     "body": {"input": [{"text": "नमस्ते दुनिया"}], "config": {"language": "hi-Deva", "to": "Taml"}}},
    {"provider": "akshara", "slug": "detect-language", "name": "Language detection", "category": "nlp",
     "unit": "requests", "price": "0.01", "summary": "Names the language of a text and how sure it is.", "body": _TEXT,
     "languages": ["en-Latn", "hi-Deva", "ur-Arab", "ta-Taml", "bn-Beng", "te-Telu"]},
    {"provider": "akshara", "slug": "sentiment", "name": "Sentiment", "category": "nlp", "unit": "requests",
     "price": "0.02", "summary": "Says whether an English text is glad, sorry or neither.", "languages": ["en-Latn"],
     "body": {"input": [{"text": "What a fine morning on the market."}], "config": {"language": "en-Latn"}}},
    {"provider": "vani", "slug": "speak", "name": "Text to speech", "category": "text_to_speech", "unit": "characters",
     "price": "0.0004", "summary": "Reads a text aloud as a WAV file in eleven languages.",
     "languages": ["hi-Deva", "en-Latn", "ta-Taml", "bn-Beng", "ml-Mlym", "te-Telu", "ur-Arab"],
     "body": {"input": [{"text": "बाज़ार खुल गया है।"}], "config": {"language": "hi-Deva", "speed": 1}}},
    {"provider": "vani", "slug": "read-image", "name": "Reading images", "category": "ocr", "unit": "images",
     "price": "0.25", "summary": "Finds the text in a picture in Hindi, Tamil, Bengali or English.",
     "languages": ["hi-Deva", "ta-Taml", "bn-Beng", "en-Latn"],
     "body": {"input": [{"image": {"content": "aGFhdA=="}}], "config": {"language": "hi-Deva"}}},
    {"provider": "vani", "slug": "commands", "name": "Spoken commands", "category": "speech_to_text",
     "unit": "audio_seconds", "price": "0.002", "summary": "Recognises short spoken commands in English.",
     "languages": ["en-Latn"], "body": {"input": [{"audio": {"content": "aGFhdA==", "format": "wav"}}], "config": {}}},
]  # fmt: skip


@dataclass(slots=True)
class Street:
    """What was put up, and who owns it."""

    developer: Actor
    provider: Actor
    operator: Actor
    stranger: Actor
    listings: list[Listing]
    application: Application
    key: IssuedKey
    subscription: Subscription
    invoice: Invoice
    call: UUID
    letter: UUID
    pending: UUID


async def furnish(platform: Platform, calls: int = 400) -> Street:
    """Put a whole street up through the services themselves; only calls and acceptance are written in."""
    operator = await _organisation(platform, OPERATOR, "Haat Operator", "operator")
    developer = await _organisation(platform, DEVELOPER, "Sabzi Mandi Software", "consumer", "29")
    stranger = await _organisation(platform, STRANGER, "Someone Else", "consumer", "27")
    vani = await _provider(platform, operator, PROVIDER, "vani", "Vani Speech and Translation")
    akshara = await _provider(platform, operator, "desk@akshara.example", "akshara", "Akshara Text Lab")
    pending = await _organisation(platform, "hello@bhasha.example", "Bhasha Lab", "provider")
    await platform.partners.register(
        pending, slug="bhasha-lab", company_name="Bhasha Lab", email="hello@bhasha.example",
        contact_person="Lalitha Raman", business_type="university",
    )  # fmt: skip
    listings = [
        await _service(platform, vani if one["provider"] == "vani" else akshara, one) for one in reversed(SERVICES)
    ][::-1]
    application = await platform.identity.create_application(developer, "Storefront")
    key = await platform.identity.create_key(developer, application.id, name="production server")
    subscriptions = [
        await platform.subscriptions.subscribe(developer, application.id, listing.id, plan)
        for listing, plan in zip(listings[:4], ("basic", "free", "professional", "free"), strict=True)
    ]
    events = _calls(platform, subscriptions, listings, calls)
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:
        records = [Record(event, "street", 1, place + 1) for place, event in enumerate(events)]
        await intake.take(connection, records, platform.clock.now())
    invoice = await platform.invoices.issue(PLATFORM, "2026-10", _org(developer))
    assert invoice is not None
    await platform.settlements.close_all(PLATFORM, "2026-10")
    letter = await _dead_letter(platform)
    await _flags(platform, operator, developer)
    await _wallet(platform, operator, developer)
    call = UUID(next(event.id for event in reversed(events) if event.outcome is Outcome.COMPLETED))
    return Street(
        developer, vani, operator, stranger, listings, application, key, subscriptions[0], invoice, call, letter,
        _org(pending),
    )  # fmt: skip


async def _wallet(platform: Platform, operator: Actor, developer: Actor) -> None:
    org, until = _org(developer), platform.clock.now() + timedelta(days=40)
    await platform.wallets.top_up(operator, org, Decimal("5000.00"), key="neft-42", note="NEFT 42")
    await platform.wallets.credit(operator, org, Decimal("250.00"), key="welcome", note="Welcome", expires_at=until)
    await platform.wallets.set_mode(operator, org, Mode.PREPAID)
    await platform.budgets.set(developer, Decimal("2000.00"), hard_stop=False)


async def _flags(platform: Platform, operator: Actor, developer: Actor) -> None:
    rule = {"variant": "on", "when": [{"attribute": "plan", "in": ["pro"]}]}
    draft = FlagDraft.parse({"description": "Search by meaning", "rules": [rule]})
    await platform.flags.put(operator, "new-search", draft)
    await platform.flags.set_percent(operator, "new-search", 12.5)
    await platform.flags.override(operator, "new-search", _org(developer), "on")
    await platform.flags.put(operator, "old-charts", FlagDraft(description="The charts of last year", enabled=False))


async def _organisation(platform: Platform, email: str, name: str, kind: Any, state: str | None = None) -> Actor:
    return await platform.identity.create_organisation(
        email=email, password=PASSWORD, name="Meera Kulkarni", organisation=name, kind=kind, state_code=state,
        address="14 Bazaar Road, Bengaluru 560001" if state else "",
    )  # fmt: skip


async def _provider(platform: Platform, operator: Actor, email: str, slug: str, name: str) -> Actor:
    actor = await _organisation(platform, email, name, "provider")
    await platform.partners.register(
        actor, slug=slug, company_name=name, email=email, contact_person="Imran Qureshi", business_type="company"
    )
    await platform.partners.approve(operator, _org(actor))
    return actor


async def _service(platform: Platform, actor: Actor, one: dict[str, Any]) -> Listing:
    draft: ServiceDraft = ServiceDraft.parse(
        {
            "slug": one["slug"],
            "name": one["name"],
            "summary": one["summary"],
            "description": f"{one['summary']}\n\nIt runs offline on the provider's own machines and keeps nothing.",
            "category": one["category"],
            "unit": one["unit"],
            "version": {
                "endpoint": "http://127.0.0.1:9999",
                "dialect": "task",
                "languages": one.get("languages", []),
                "language_pairs": one.get("pairs", []),
                "sample": {"body": one["body"]},
                "policy": {"quality": one.get("quality", [])},
            },
            "price": {"unit_price": one["price"], "free_units": one.get("free", "0")},
        }
    )
    made = await platform.catalog.register(actor, draft)
    async with platform.db.transaction(tenant(actor.org_id)) as connection:
        await catalog_store.accept_version(connection, made.service_id, made.version_id, platform.clock.now())
    async with platform.service_db.transaction(PLATFORM_SCOPE) as connection:  # a price that held in October already
        await connection.execute(
            """INSERT INTO rate_cards (id, service_id, version, unit, unit_price, free_units, provider_share,
                   effective_from, created_at)
               SELECT gen_random_uuid(), service_id, 99, unit, unit_price, 0, provider_share, %s, created_at
               FROM rate_cards WHERE service_id = %s""",
            (datetime(2026, 1, 1, tzinfo=UTC), made.service_id),
        )
    return await platform.catalog.publish(actor, made.service_id)


def _calls(
    platform: Platform, subscriptions: list[Subscription], listings: list[Listing], count: int
) -> list[UsageEvent]:
    chance = random.Random(11)
    now = platform.clock.now()
    providers = {listing.id: listing for listing in listings}
    moments = sorted(now - timedelta(minutes=chance.triangular(1, 34 * 24 * 60, 1)) for _ in range(count))
    return [_call(chance, chance.choice(subscriptions), providers, at) for at in moments]


def _call_id(milliseconds: int, chance: random.Random) -> UUID:
    """Return a UUIDv7 of a millisecond with a random tail."""
    tail = chance.getrandbits(12) << 64 | 0b10 << 62 | chance.getrandbits(62)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | tail)


def _call(
    chance: random.Random, subscription: Subscription, providers: dict[UUID, Listing], at: datetime
) -> UsageEvent:
    listing = providers[subscription.service_id]
    outcome, status, code = chance.choices(
        [(Outcome.COMPLETED, 200, ""), (Outcome.REFUSED, 429, "RATE_LIMITED"),
         (Outcome.PROVIDER_FAILED, 502, "ENGINE_FAILED")],
        [92, 6, 2],
    )[0]  # fmt: skip
    milliseconds = round(at.timestamp() * 1000)
    total = chance.randint(900, 90_000) if outcome is not Outcome.REFUSED else 180
    reached = outcome is not Outcome.REFUSED
    amount = str(Decimal(chance.randint(20, 4000))) if listing.unit == "characters" else "1"
    return UsageEvent(
        id=str(_call_id(milliseconds, chance)), at=milliseconds, outcome=outcome, v=VERSION,
        org=str(subscription.org_id),
        application=str(subscription.application_id), credential=str(subscription.application_id),
        subscription=str(subscription.id), plan=subscription.plan_code, provider=listing.provider_slug,
        provider_org=str(listing.org_id), service=str(listing.id), service_slug=listing.slug, version="1",
        method="POST", path_template="/invoke", status=status, error_code=code,
        units={"requests": "1", listing.unit: amount} if outcome is Outcome.COMPLETED else {},
        units_source="upstream", tags={"team": "shop"}, user="customer-17",
        timings_us=Timings(admission=120, queue=40 if reached else 0, connect=310 if reached else 0,
                           first_byte=int(total * 0.9) if reached else 0, total=total),
        bytes_in=420, bytes_out=890 if reached else 310, gateway="g0",
    )  # fmt: skip


async def _dead_letter(platform: Platform) -> UUID:
    async with platform.db.transaction(PLATFORM_SCOPE) as connection:
        await dead_letters.bury(
            connection, job_id=41, task="core.purge", queue="default", priority=0, args={}, attempts=8,
            error="Traceback (most recent call last):\nConnectionRefusedError: the mail server does not answer",
        )  # fmt: skip
        return (await dead_letters.find(connection))[0].id


def _org(actor: Actor) -> UUID:
    assert actor.org_id is not None
    return actor.org_id
