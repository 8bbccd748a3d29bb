"""What visitors see: the street, the catalog, one listing, and the try-it form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from haat.catalog.model import Listing, Version
from haat.flags.switchboard import PORTAL_TRIAL
from haat.identity.model import Application
from haat.kernel.errors import HaatError, NotFound
from haat.language import LANGUAGES
from haat.portal import formats, snippets
from haat.portal.proofs import Proof
from haat.portal.trial import Trial, controls_of
from haat.portal.visit import Fields, Visit, VisitOf, messages
from haat.subscriptions.model import Subscription

SPEAKS = {
    "task": "the task schema",
    "http": "its own HTTP API",
    "openai": "the OpenAI protocol",
    "anthropic": "Anthropic's protocol",
    "inference": "the task schema, its model tensors",
    "ulca": "the task schema, its model Bhashini's",
}
"""What callers of a version speak with it, by its dialect."""

router = APIRouter()

_FACET_LIMIT = 30
_ON_THE_LANDING = 6
# The scheduled languages by first-language speakers (Census of India 2011, statement 1), then English.
_BY_SPEAKERS = (
    *("hi", "bn", "mr", "te", "ta", "gu", "ur", "kn", "or", "ml", "pa", "as", "mai", "sat", "ks", "ne"),
    *("sd", "doi", "kok", "mni", "brx", "sa", "en"),
)
_PATTERN_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Card:
    """A listing as a stall on the street."""

    listing: Listing
    proof: Proof | None
    names: list[formats.LanguageName]


@dataclass(frozen=True, slots=True)
class Option:
    """One way to narrow the catalog; ``href`` chooses it, or takes it away when it is chosen."""

    text: str
    name: formats.LanguageName | None
    count: int
    chosen: bool
    href: str


@dataclass(frozen=True, slots=True)
class Facet:
    name: str
    title: str
    options: list[Option]


async def _cards(visit: Visit, listings: Sequence[Listing]) -> list[Card]:
    proofs = await visit.request.app.state.portal.proofs.of_all(visit.platform)
    return [Card(listing, proofs.get(listing.id), formats.spoken(listing)) for listing in listings]


@router.get("/")
async def landing(visit: VisitOf) -> Response:
    page = await visit.platform.discovery.search(visit.actor, limit=_ON_THE_LANDING)
    cards = await _cards(visit, page.items)
    closer = next((card for card in cards if card.listing.language_pairs), cards[0] if cards else None)
    snippet = ""
    if closer:
        version = await _default_version(visit, closer.listing)
        snippet = snippets.curl(visit.platform.settings.gateway_address, closer.listing, version) if version else ""
    return visit.render(
        "landing.html",
        cards=cards,
        closer=closer,
        snippet=snippet,
        languages=[formats.language(str(LANGUAGES[code].tag)) for code in _BY_SPEAKERS],
    )


@router.get("/catalog")
async def catalog(
    visit: VisitOf, q: str = "", category: str = "", language: str = "", provider: str = "", cursor: str = ""
) -> Response:
    query = {"q": q[:_PATTERN_LIMIT], "category": category, "language": language, "provider": provider}
    page = await visit.platform.discovery.search(
        visit.actor,
        text=query["q"],
        category=category or None,
        language=language or None,
        provider=provider or None,
        cursor=cursor or None,
    )
    return visit.render(
        "catalog.html",
        query=query,
        cards=await _cards(visit, page.items),
        facets=await _facets(visit, query),
        narrowed=sum(bool(query[name]) for name in ("category", "language", "provider")),
        next_href=_address({**query, "cursor": page.next}) if page.next else None,
    )


@router.get("/catalog/suggest")
async def suggest(visit: VisitOf, q: str = "") -> Response:
    """Return completions as options of a datalist: the browser brings the keyboard with it."""
    found = await visit.platform.discovery.autocomplete(visit.actor, q[:_PATTERN_LIMIT])
    kept = q[: len(q) - len(q.split(" ")[-1])]
    options = Markup("").join(Markup('<option value="{}"></option>').format(kept + one.text) for one in found)
    return HTMLResponse(options, headers={"Cache-Control": "private, max-age=60"})


async def _facets(visit: Visit, query: dict[str, str]) -> list[Facet]:
    found = await visit.platform.discovery.facets(visit.actor)

    def option(facet: str, value: str, text: str, count: int, name: formats.LanguageName | None = None) -> Option:
        chosen = bool(query[facet]) and (value == query[facet] or value.startswith(query[facet] + "-"))
        return Option(text, name, count, chosen, _address({**query, facet: "" if chosen else value}))

    by_count = sorted(found.languages.items(), key=lambda item: (-item[1], item[0]))[:_FACET_LIMIT]
    spoken = [option("language", tag, tag, count, formats.language(tag)) for tag, count in by_count]
    asked = query["language"]
    if asked and not any(one.chosen for one in spoken):
        spoken.insert(0, option("language", asked, asked, 0, formats.language(asked)))
    return [
        Facet(
            "category",
            "Kind",
            [option("category", code, formats.category_name(code), n) for code, n in sorted(found.categories.items())],
        ),
        Facet("language", "Language", spoken),
        Facet(
            "provider",
            "Provider",
            [option("provider", slug, name, n) for slug, (name, n) in sorted(found.providers.items())][:_FACET_LIMIT],
        ),
    ]


def _address(query: dict[str, str]) -> str:
    kept = {name: value for name, value in query.items() if value}
    return f"/catalog?{urlencode(kept)}" if kept else "/catalog"


# --- one listing ----------------------------------------------------------------------------------


async def _default_version(visit: Visit, listing: Listing) -> Version | None:
    versions = await visit.platform.discovery.versions(visit.actor, listing.id)
    return next((version for version in versions if version.is_default), None)


async def _own_applications(visit: Visit) -> list[Application]:
    return await visit.platform.identity.applications(visit.visitor.actor) if visit.visitor else []


async def _listing_page(
    visit: Visit,
    listing: Listing,
    status: int = 200,
    *,
    errors: Fields | None = None,
    trial: Trial | None = None,
) -> Response:
    platform = visit.platform
    versions = await platform.discovery.versions(visit.actor, listing.id)
    default = next((version for version in versions if version.is_default), None)
    subscriptions: list[Subscription] = []
    if visit.visitor:
        every = await platform.subscriptions.of(visit.visitor.actor)
        subscriptions = [one for one in every if one.service_id == listing.id]
    taken = {one.application_id for one in subscriptions}
    applications = await _own_applications(visit)
    prices = await platform.discovery.prices(visit.actor, listing.id)
    gateway = platform.settings.gateway_address
    return visit.render(
        "listing.html",
        status,
        may_try=await platform.switchboard.is_on(PORTAL_TRIAL, visit.actor),
        speaks=SPEAKS,
        listing=listing,
        level=await platform.sla.standing(visit.actor, listing.id),
        card=(await _cards(visit, [listing]))[0],
        versions=[version for version in versions if version.accepted_at is not None],
        default=default,
        pairs=[
            tuple(formats.language(tag) for tag in pair.split(">"))
            for pair in (default.language_pairs if default else ())
        ],
        qualities=[
            (*(formats.language(tag) for tag in said["pair"].split(">")), said, date.fromisoformat(said["date"]))
            for said in (default.quality if default else ())
        ],
        plans=await platform.subscriptions.plans(listing.id),
        plan_prices={price.plan_code: price for price in prices if price.plan_code},
        subscriptions=subscriptions,
        free_applications=[one for one in applications if one.id not in taken],
        applications=applications,
        controls=controls_of(default) if default else [],
        snippets=snippets.all_of(gateway, listing, default) if default else [],
        typed=visit.typed,
        errors=errors or Fields(),
        trial=trial,
    )


@router.get("/services/{provider}/{service}")
async def listing(visit: VisitOf, provider: str, service: str) -> Response:
    return await _listing_page(visit, await visit.platform.discovery.listing(visit.actor, provider, service))


@router.post("/services/{provider}/{service}/subscribe")
async def subscribe(visit: VisitOf, provider: str, service: str) -> Response:
    """Subscribe an application; one is made on the way for who has none yet."""
    actor = visit.require_actor()
    found = await visit.platform.discovery.listing(actor, provider, service)
    try:
        if visit.text("application"):
            application: UUID = visit.identifier("application")
        else:
            made = await visit.platform.identity.create_application(actor, visit.text("new_application"))
            application = made.id
        await visit.platform.subscriptions.subscribe(actor, application, found.id, visit.text("plan"))
    except NotFound:
        raise
    except HaatError as error:
        return await _listing_page(visit, found, error.status, errors=messages(error))
    return visit.redirect(f"/services/{found.path}", done="subscribed")


@router.post("/services/{provider}/{service}/try")
async def try_it(visit: VisitOf, provider: str, service: str) -> Response:
    """Make one real call through the gateway with the visitor's own key."""
    actor = visit.require_actor()
    await visit.platform.switchboard.require(PORTAL_TRIAL, actor)
    found = await visit.platform.discovery.listing(actor, provider, service)
    version = await _default_version(visit, found)
    if version is None:
        raise NotFound("The service has no version that serves calls.")
    subscription = await visit.platform.subscriptions.get(actor, visit.identifier("subscription"))
    trial = await visit.request.app.state.portal.trials.call(visit, found, version, subscription)
    if visit.in_place:
        return visit.render("trial.html", trial=trial, listing=found)
    return await _listing_page(visit, found, trial=trial)
