"""What visitors see: the street, the catalog, one listing, and the try-it form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from haat.catalog.model import ORDERS, Listing, Order, Version
from haat.flags.switchboard import PORTAL_TRIAL
from haat.identity.model import Application
from haat.kernel.errors import HaatError, NotFound, RateLimited, ValidationFailed
from haat.language import LANGUAGES
from haat.language.messages import N_, _
from haat.portal import formats, language_names, snippets
from haat.portal.content_policy import WITH_RECORDINGS
from haat.portal.cost import cost_of
from haat.portal.language_names import LanguageName
from haat.portal.proofs import Proof
from haat.portal.reviewing import said_of
from haat.portal.trial import Control, Trial, TrialKey, controls_of, refused_trial, streams
from haat.portal.trial_stream import stream_trial
from haat.portal.trial_visitors import may_be_tried
from haat.portal.visit import Fields, Visit, VisitOf, messages
from haat.reviews.model import Standing
from haat.subscriptions.model import Subscription
from haat.usage.streams import EVENT_STREAM, streamed

SPEAKS = {
    "task": N_("the task schema"),
    "http": N_("its own HTTP API"),
    "openai": N_("the OpenAI protocol"),
    "anthropic": N_("Anthropic's protocol"),
    "inference": N_("the task schema, its model tensors"),
    "ulca": N_("the task schema, its model Bhashini's"),
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
_PRICE_LIMIT = 20
_SORTS: dict[str, Order] = {order: order for order in ORDERS if order != "best"}


@dataclass(frozen=True, slots=True)
class Card:
    """A listing as a stall on the street."""

    listing: Listing
    proof: Proof | None
    standing: Standing
    names: list[LanguageName]


@dataclass(frozen=True, slots=True)
class Option:
    """One way to narrow the catalog; ``href`` chooses it, or takes it away when it is chosen."""

    text: str
    name: LanguageName | None
    count: int
    chosen: bool
    href: str


@dataclass(frozen=True, slots=True)
class Facet:
    name: str
    title: str
    options: list[Option]


async def _cards(visit: Visit, listings: Sequence[Listing]) -> list[Card]:
    proofs = await visit.request.app.state.portal.proofs.of(visit.platform, listings)
    standings = await visit.platform.reviews.standings([listing.id for listing in listings])
    return [
        Card(listing, proofs.get(listing.id), standings[listing.id], language_names.languages_of(listing))
        for listing in listings
    ]


@router.get("/")
async def landing(visit: VisitOf) -> Response:
    page = await visit.platform.discovery.search(visit.actor, limit=_ON_THE_LANDING)
    cards = await _cards(visit, page.items)
    closer = next((card for card in cards if card.listing.language_pairs), cards[0] if cards else None)
    snippet, tried, version = "", None, None
    if closer:
        version = await _default_version(visit, closer.listing)
        snippet = snippets.curl(visit.platform.settings.gateway_address, closer.listing, version) if version else ""
    open_to_visitors = visit.visitor is None and visit.platform.settings.portal_trial_visitors != "off"
    for card in [closer, *cards] if closer and open_to_visitors else []:
        default = version if card is closer else await _default_version(visit, card.listing)
        if default is not None and may_be_tried(visit.platform, card.listing, default):
            tried = card.listing, controls_of(default), streams(default)
            break
    response = visit.render(
        "landing.html",
        may_try=await visit.platform.switchboard.is_on(PORTAL_TRIAL, visit.actor),
        tried=tried,
        subscriptions=(),
        trial=None,
        typed=Fields(),
        try_errors=Fields(),
        address_calls=visit.platform.settings.portal_trial_address_calls,
        cards=cards,
        closer=closer,
        snippet=snippet,
        languages=[language_names.language(str(LANGUAGES[code].tag)) for code in _BY_SPEAKERS],
    )
    return _played(response, tried[1] if tried else [])


@router.get("/catalog")
async def catalog(
    visit: VisitOf,
    q: str = "",
    category: str = "",
    language: str = "",
    provider: str = "",
    sort: str = "",
    max_price: str = "",
    exact: str = "",
    cursor: str = "",
) -> Response:
    query = {"q": q[:_PATTERN_LIMIT], "category": category, "language": language, "provider": provider}
    query |= {"sort": sort if sort in _SORTS else "", "max_price": max_price.strip(), "exact": exact}
    price = _price(query["max_price"])
    page = await visit.platform.discovery.search(
        visit.actor,
        text=query["q"],
        exact=bool(exact),
        category=category or None,
        language=language or None,
        provider=provider or None,
        max_price=price,
        order=_SORTS.get(sort, "best"),
        cursor=cursor or None,
    )
    wrong = bool(query["max_price"]) and price is None
    return visit.render(
        "catalog.html",
        422 if wrong else 200,
        query=query,
        price_error=_("Type a price in rupees, such as 0.05.") if wrong else "",
        instead=page.instead,
        exact_href=_address({**query, "exact": "1"}),
        sorts=[("", _("Best first")), ("cheapest", _("Cheapest first")), ("fastest", _("Fastest first")),
               ("newest", _("Newest first"))],
        cards=await _cards(visit, page.items),
        facets=await _facets(visit, query),
        narrowed=sum(bool(query[name]) for name in ("category", "language", "provider", "max_price")),
        next_href=_address({**query, "cursor": page.next}) if page.next else None,
    )  # fmt: skip


def _price(text: str) -> Decimal | None:
    """Return a price in rupees as it was typed, or None for what is none."""
    try:
        price = Decimal(text[:_PRICE_LIMIT])
    except InvalidOperation:
        return None
    return price if price.is_finite() and price >= 0 else None


@router.get("/catalog/suggest")
async def suggest(visit: VisitOf, q: str = "") -> Response:
    """Return completions as options of a datalist: the browser brings the keyboard with it."""
    found = await visit.platform.discovery.autocomplete(visit.actor, q[:_PATTERN_LIMIT])
    kept = q[: len(q) - len(q.split(" ")[-1])]
    options = Markup("").join(Markup('<option value="{}"></option>').format(kept + one.text) for one in found)
    return HTMLResponse(options, headers={"Cache-Control": "private, max-age=60"})


async def _facets(visit: Visit, query: dict[str, str]) -> list[Facet]:
    found = await visit.platform.discovery.facets(visit.actor)

    def option(facet: str, value: str, text: str, count: int, name: LanguageName | None = None) -> Option:
        chosen = bool(query[facet]) and (value == query[facet] or value.startswith(query[facet] + "-"))
        return Option(text, name, count, chosen, _address({**query, facet: "" if chosen else value}))

    by_count = sorted(found.languages.items(), key=lambda item: (-item[1], item[0]))[:_FACET_LIMIT]
    spoken = [option("language", tag, tag, count, language_names.language(tag)) for tag, count in by_count]
    providers = sorted(found.providers.items(), key=lambda item: (item[0] != query["provider"], -item[1][1], item[0]))
    shown = sorted(providers[:_FACET_LIMIT])
    asked = query["language"]
    if asked and not any(one.chosen for one in spoken):
        spoken.insert(0, option("language", asked, asked, 0, language_names.language(asked)))
    return [
        Facet(
            "category",
            _("Kind"),
            [option("category", code, formats.category_name(code), n) for code, n in sorted(found.categories.items())],
        ),
        Facet("language", _("Language"), spoken),
        Facet(
            "provider",
            _("Provider"),
            [option("provider", slug, name, n) for slug, (name, n) in shown],
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


def _chosen(visit: Visit, applications: Sequence[Application]) -> Application | None:
    """Return the application that the address names, for which the snippets are written."""
    named = visit.request.query_params.get("application", "")
    return next((one for one in applications if str(one.id) == named), None)


async def _key_of(visit: Visit, application: Application | None) -> str:
    """Return a sentence that says which key goes into a snippet: by its first and last letters, all there is of it."""
    if application is None:
        return ""
    keys = await visit.platform.identity.keys(visit.require_actor(), application.id)
    now = visit.platform.clock.now()
    key = next((one for one in keys if one.is_active(now)), None)
    if key is None:
        return _("a key of %(application)s, which has none yet", application=application.name)
    return f"{key.prefix}…{key.last_four}, {application.name}"


async def listing_page(
    visit: Visit,
    listing: Listing,
    status: int = 200,
    *,
    errors: Fields | None = None,
    trial: Trial | None = None,
    review_errors: Fields | None = None,
    try_errors: Fields | None = None,
) -> Response:
    """Return a listing's page; what a form of it was refused for stands at that form."""
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
    plans = await platform.subscriptions.plans(listing.id)
    gateway = platform.settings.gateway_address
    chosen = _chosen(visit, applications)
    controls = controls_of(default) if default else []
    response = visit.render(
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
            tuple(language_names.language(tag) for tag in pair.split(">"))
            for pair in (default.language_pairs if default else ())
        ],
        qualities=[
            (*(language_names.language(tag) for tag in said["pair"].split(">")), said, date.fromisoformat(said["date"]))
            for said in (default.quality if default else ())
        ],
        plans=plans,
        plan_prices={price.plan_code: price for price in prices if price.plan_code},
        subscriptions=subscriptions,
        free_applications=[one for one in applications if one.id not in taken],
        applications=applications,
        controls=controls,
        snippets=snippets.all_of(gateway, listing, default, await _key_of(visit, chosen)) if default else [],
        chosen=chosen,
        cost=await cost_of(visit, listing, plans),
        gst_rate=platform.settings.gst_rate,
        said=await said_of(visit, listing, review_errors),
        typed=visit.typed,
        errors=errors or Fields(),
        try_errors=try_errors or Fields(),
        trial=trial,
        open_to_visitors=may_be_tried(platform, listing, default),
        streaming=default is not None and streams(default),
        address_calls=platform.settings.portal_trial_address_calls,
    )
    return _played(response, controls)


def _played(response: Response, controls: Sequence[Control]) -> Response:
    """Let a page play what it recorded, when it has a field for that."""
    if any(control.accept == "audio/*" for control in controls):
        response.headers["Content-Security-Policy"] = WITH_RECORDINGS
    return response


@router.get("/services/{provider}/{service}")
async def listing(visit: VisitOf, provider: str, service: str) -> Response:
    return await listing_page(visit, await visit.platform.discovery.listing(visit.actor, provider, service))


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
        return await listing_page(visit, found, error.status, errors=messages(error))
    return visit.redirect(f"/services/{found.path}", done="subscribed")


@router.post("/services/{provider}/{service}/try")
async def try_it(visit: VisitOf, provider: str, service: str) -> Response:
    """Make one real call through the gateway: with the visitor's own key, or at the operator's cost."""
    found, version = await _tried(visit, provider, service)
    try:
        key = await _trial_key(visit, found, version)
    except (RateLimited, ValidationFailed) as error:
        if visit.in_place:
            return visit.render("trial.html", trial=refused_trial(error), listing=found)
        return await listing_page(visit, found, error.status, trial=refused_trial(error), try_errors=messages(error))
    trial = await visit.request.app.state.portal.trials.call(visit, found, version, key)
    if visit.in_place:
        return visit.render("trial.html", trial=trial, listing=found)
    return await listing_page(visit, found, trial=trial)


@router.post("/services/{provider}/{service}/try/stream")
async def try_streaming(visit: VisitOf, provider: str, service: str) -> Response:
    """Make such a call and send its answer on as it is made, for pages that run scripts; refusals come the same way."""
    found, version = await _tried(visit, provider, service)
    if not streams(version):
        raise NotFound(_("This service answers in one piece."))

    def rendered(trial: Trial) -> str:
        return visit.environment.get_template("trial.html").render(trial=trial, listing=found)

    try:
        key = await _trial_key(visit, found, version)
    except (RateLimited, ValidationFailed) as error:
        return HTMLResponse(rendered(refused_trial(error)), headers={"Cache-Control": "no-store"})
    return await streamed(stream_trial(visit, found, version, key, rendered), EVENT_STREAM)


async def _tried(visit: Visit, provider: str, service: str) -> tuple[Listing, Version]:
    found = await visit.platform.discovery.listing(visit.actor, provider, service)
    version = await _default_version(visit, found)
    if version is None:
        raise NotFound(_("The service has no version that serves calls."))
    return found, version


async def _trial_key(visit: Visit, listing: Listing, version: Version) -> TrialKey:
    """Return the key to call with: of a subscription's application when one is named, else the operator's."""
    portal = visit.request.app.state.portal
    if not visit.text("subscription"):
        key: TrialKey = await portal.visitor_trials.open(visit, listing, version)
        return key
    actor = visit.require_actor()
    await visit.platform.switchboard.require(PORTAL_TRIAL, actor)
    subscription = await visit.platform.subscriptions.get(actor, visit.identifier("subscription"))
    return TrialKey(await portal.trials.key(visit, actor, subscription.application_id), own=True)
