"""One request to the portal: who asks, what they sent, and how a page goes back to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib import resources
from typing import Annotated, Any
from urllib.parse import quote, urlencode
from uuid import UUID

from fastapi import Depends, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import FormData, UploadFile
from starlette.responses import HTMLResponse, RedirectResponse, Response

from haat.app import Platform
from haat.identity.model import Organisation, Session, User
from haat.kernel.errors import (
    BodyTooLarge,
    FormExpired,
    HaatError,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    ValidationFailed,
)
from haat.kernel.permissions import Actor
from haat.kernel.text import is_storable
from haat.language import Tag
from haat.language.messages import INTERFACE, _, borrowed, gettext, ngettext, prepare, speak, told
from haat.portal import csrf, formats
from haat.portal.announcements import SEEN_COOKIE, Notice, seen_in
from haat.portal.notices import NOTICES
from haat.portal.tongue import LANGUAGE_COOKIE, asked_in, code_of, tongue_of

SESSION_COOKIE = "haat_session"
THEME_COOKIE = "haat_theme"
THEMES = ("auto", "light", "dark", "contrast")
YEAR = 365 * 24 * 3600
MAX_FORM_BYTES = 12 * 1024 * 1024


def _static_version() -> str:
    """Return a name for the present state of the static files, so that they can be cached for good."""
    digest = hashlib.sha256()
    for file in sorted(resources.files("haat.portal").joinpath("static").iterdir(), key=lambda file: file.name):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:10]


def make_environment() -> Environment:
    """Return the templates: everything is escaped, an unknown name is an error."""
    environment = Environment(
        loader=PackageLoader("haat.portal", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    environment.policies["ext.i18n.trimmed"] = True
    environment.install_gettext_callables(gettext, ngettext, newstyle=True)  # type: ignore[attr-defined]  # the extension's
    environment.filters.update(formats.FILTERS)
    environment.globals["static_version"] = _static_version()
    return environment


class Fields(dict[str, str]):
    """Texts by field name, where an absent one is empty: what was typed, and what is wrong with it."""

    def __missing__(self, name: str) -> str:
        return ""


@dataclass(slots=True)
class Visitor:
    """Somebody who is signed in; ``session`` is the text of the cookie, ``session_id`` what it may be called."""

    actor: Actor
    organisation: Organisation
    session: str
    session_id: UUID
    user: User


@dataclass(slots=True)
class Visit:
    """What a page's handler works with. ``visitor`` is None before sign-in."""

    request: Request
    platform: Platform
    environment: Environment
    visitor: Visitor | None
    visit_id: str
    """The random cookie of a browser without session; a new one goes out with the answer."""
    tongue: Tag
    """The language in which the page speaks."""
    form: FormData = field(default_factory=FormData)
    _uploads: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    @property
    def actor(self) -> Actor | None:
        return self.visitor.actor if self.visitor else None

    @property
    def zone(self) -> str:
        return self.visitor.organisation.zone if self.visitor else self.platform.settings.zone

    def require_actor(self) -> Actor:
        """Return who is signed in; raise Unauthenticated, which leads to the sign-in page."""
        if self.visitor is None:
            raise Unauthenticated(_("Sign in first."))
        return self.visitor.actor

    @property
    def client(self) -> str | None:
        """The network address that asks: a proxy's own when one stands in front."""
        return self.request.client.host if self.request.client else None

    @property
    def session(self) -> str | None:
        """The token of the session that asks."""
        return self.visitor.session if self.visitor else None

    @property
    def user_agent(self) -> str:
        return self.request.headers.get("user-agent", "")

    @property
    def secure(self) -> bool:
        """Whether cookies are for https only."""
        return self.platform.settings.portal_address.startswith("https://")

    @property
    def holder(self) -> str:
        return self.visitor.session if self.visitor else self.visit_id

    # --- what was sent --------------------------------------------------------------------------

    def text(self, name: str) -> str:
        """Return a text field of the form, without surrounding space; an absent one is empty."""
        value = self.form.get(name, "")
        return value.strip() if isinstance(value, str) else ""

    def texts(self, name: str) -> list[str]:
        """Return every value of a field that may be chosen more than once."""
        return [value.strip() for value in self.form.getlist(name) if isinstance(value, str)]

    def secret(self, name: str) -> str:
        """Return a text field exactly as it was typed."""
        value = self.form.get(name, "")
        return value if isinstance(value, str) else ""

    def identifier(self, name: str) -> UUID:
        """Return a field that holds an id; raise NotFound when it does not."""
        return parse_id(self.text(name))

    async def upload(self, name: str) -> tuple[bytes, str]:
        """Return a file's content and its name, both empty when none was chosen."""
        value = self.form.get(name)
        if not isinstance(value, UploadFile):
            return b"", ""
        if name not in self._uploads:
            self._uploads[name] = await value.read(), value.filename or ""
            await value.close()
        return self._uploads[name]

    @property
    def typed(self) -> Fields:
        """Every text field, to fill the form again; never a password."""
        return Fields(
            (name, value)
            for name, value in self.form.items()
            if isinstance(value, str) and name not in (csrf.FIELD, "password", "present_password")
        )

    @property
    def in_place(self) -> bool:
        """Whether htmx asked, and only the changed part is wanted."""
        return self.request.headers.get("hx-request") == "true"

    # --- what goes back -------------------------------------------------------------------------

    def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """Return a page. ``context`` joins what every page has (see ``docs/design.md``)."""
        page = self.environment.get_template(template).render(
            visitor=self.visitor,
            zone=self.zone,
            path=self.request.url.path,
            here=self._here(),
            form_token=csrf.form_token(self.platform.keyring, self.holder),
            theme=self.theme,
            notice=gettext(NOTICES.get(self.request.query_params.get("done", ""), "")),
            tongue=self.tongue,
            tongues=INTERFACE,
            borrowed=borrowed,
            announcements=self.announcements,
            gateway=self.platform.settings.gateway_address,
            **context,
        )
        response = HTMLResponse(page, status)
        response.headers["Cache-Control"] = "no-store" if self.visitor else "private, no-cache"
        response.headers["Vary"] = "Accept-Language, Cookie, HX-Request"
        response.headers["Content-Language"] = code_of(self.tongue)
        response.headers["X-Haat-Reader"] = self._reader()
        if (asked := asked_in(self.request)) is not None and self.request.cookies.get(LANGUAGE_COOKIE) != str(asked):
            self.set_cookie(response, LANGUAGE_COOKIE, str(asked), max_age=YEAR)
        if self.visitor is None and self.request.cookies.get(csrf.VISIT_COOKIE) != self.visit_id:
            self.set_cookie(response, csrf.VISIT_COOKIE, self.visit_id)
        return response

    def _reader(self) -> str:
        """For whom a browser may keep the page while it has no connection: another session must not find it."""
        return hashlib.sha256(self.visitor.session.encode()).hexdigest()[:12] if self.visitor else "anybody"

    def redirect(self, path: str, **query: str) -> Response:
        """Send the browser on with GET, as after every form that succeeded."""
        return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, 303)

    def set_cookie(self, response: Response, name: str, value: str, max_age: int | None = None) -> None:
        response.set_cookie(name, value, max_age=max_age, path="/", secure=self.secure, httponly=True, samesite="lax")

    def enter(self, session: Session, response: Response) -> Response:
        """Let the browser hold a session from now on, in place of any before."""
        length = int((session.expires_at - self.platform.clock.now()).total_seconds())
        self.set_cookie(response, SESSION_COOKIE, session.token, max_age=length)
        return response

    def leave(self, response: Response) -> Response:
        """Let the browser forget its session."""
        response.delete_cookie(SESSION_COOKIE, path="/", secure=self.secure, httponly=True, samesite="lax")
        return response

    @property
    def theme(self) -> str:
        chosen = self.request.cookies.get(THEME_COOKIE, "auto")
        return chosen if chosen in THEMES else "auto"

    @property
    def announcements(self) -> list[Notice]:
        """What is announced and was not put away on this browser."""
        seen = seen_in(self.request.cookies.get(SEEN_COOKIE, ""))
        notices: list[Notice] = self.request.app.state.portal.announcements.for_reader(self.tongue, seen)
        return notices

    def _here(self) -> str:
        """The address to come back to after a form that belongs to no page in particular."""
        url = self.request.url
        return url.path if self.request.method != "GET" or not url.query else f"{url.path}?{url.query}"


async def look_up_visitor(request: Request, platform: Platform) -> Visitor | None:
    """Return who a request's session cookie stands for, or None when it is absent or over."""
    token = request.cookies.get(SESSION_COOKIE, "")
    if not token:
        return None
    try:
        session = await platform.identity.session_of(token)
    except Unauthenticated:
        return None
    organisation = await platform.identity.organisation(session.org_id)
    return Visitor(session.actor, organisation, token, session.id, session.user)


def begin(request: Request, visitor: Visitor | None) -> Visit:
    """Return the visit of a request, not yet trusted with a form, and speak its language from here on."""
    visit_id = request.cookies.get(csrf.VISIT_COOKIE) or csrf.new_visit()
    tongue = tongue_of(request, visitor.user.language if visitor else None)
    speak(tongue)
    return Visit(request, request.app.state.platform, request.app.state.portal.environment, visitor, visit_id, tongue)


async def open_visit(request: Request) -> Visit:
    """Return the visit of a request; raise FormExpired for a form without the token it was given."""
    visit = begin(request, await look_up_visitor(request, request.app.state.platform))
    await prepare(visit.tongue)
    await request.app.state.portal.announcements.look(visit.platform)
    if request.method in ("GET", "HEAD"):
        await _keep_language(visit)
        return visit
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise InvalidRequest(_("Send the form with its length, as browsers do."))
    if int(length) > MAX_FORM_BYTES:
        raise BodyTooLarge(limit_bytes=MAX_FORM_BYTES)
    visit.form = await request.form(max_files=4, max_fields=100)
    if not is_storable([value for value in visit.form.values() if isinstance(value, str)]):
        raise InvalidRequest(_("The form holds characters that can't be stored."))
    if not csrf.fits(visit.platform.keyring, visit.holder, visit.text(csrf.FIELD)):
        raise FormExpired
    return visit


async def _keep_language(visit: Visit) -> None:
    """Keep in the account which language its owner chose by an address; a link on another site chooses nothing."""
    asked, visitor = asked_in(visit.request), visit.visitor
    if asked is None or visitor is None or asked == visitor.user.language:
        return
    if visit.request.headers.get("sec-fetch-site") != "cross-site":
        visitor.user = await visit.platform.access.change_profile(visitor.actor, language=str(asked))


VisitOf = Annotated[Visit, Depends(open_visit)]


def parse_id(text: str) -> UUID:
    """Return an id from an address; raise NotFound for what can't be one."""
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound from error


def own_path(path: str, fallback: str = "/") -> str:
    """Return ``path`` when it lies on this portal: nobody is sent to another site from here."""
    if not path.startswith("/") or path.startswith(("//", "/\\")) or any(ord(letter) < 32 for letter in path):
        return fallback
    return quote(path, safe="/?&=%@:+,~.-_>")


def messages(error: HaatError) -> Fields:
    """Return a refusal's message per field, translated; what belongs to no field stands under ``""``."""
    found = error.extensions.get("errors", []) if isinstance(error, ValidationFailed) else []
    return Fields((item["field"], told(item["message"])) for item in found) or Fields({"": told(error.detail)})
