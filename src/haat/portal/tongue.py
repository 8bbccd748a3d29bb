"""In which language a page speaks: the address says it, or the account, or an earlier choice, or the browser.

``/hi/catalog`` is the catalog in Hindi for everybody. Whoever opens such an address has chosen, and the pages without
a language in their address keep to it from then on: a cookie remembers it, and the account of who is signed in.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from haat.language import ENGLISH, LANGUAGES, Tag, parse_tag

LANGUAGE_COOKIE = "haat_language"
_ASKED = "haat.language"


class LanguageInPath:
    """Takes the language out of an address, so that every route has one form."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            code, _, rest = scope["path"][1:].partition("/")
            if code in LANGUAGES:
                path = "/" + rest
                raw = scope.get("raw_path")
                scope = {**scope, "path": path, _ASKED: LANGUAGES[code].tag}
                if raw is not None:
                    scope["raw_path"] = raw[1 + len(code) :] or b"/"
        await self.app(scope, receive, send)


def asked_in(request: Request) -> Tag | None:
    """Return the language that the address names, or None."""
    tag: Tag | None = request.scope.get(_ASKED)
    return tag


def tongue_of(request: Request, account: Tag | None = None) -> Tag:
    """Return the language in which to answer a request; ``account`` is the one that its sender's account names."""
    chosen = asked_in(request) or account or _known(request.cookies.get(LANGUAGE_COOKIE, ""))
    return chosen or _accepted(request) or ENGLISH


def code_of(tag: Tag) -> str:
    """Return a language of the interface as ``lang`` and ``Content-Language`` have it: ``hi-IN``.

    Manipuri names its script, because CLDR and browsers expect another one of it.
    """
    return f"{tag}-IN" if tag.language == "mni" else f"{tag.language}-IN"


def _accepted(request: Request) -> Tag | None:
    """Return the first language of the browser's that is one of ours (RFC 9110, 12.5.4)."""
    wanted = []
    for place, part in enumerate(request.headers.get("accept-language", "")[:500].split(",")):
        name, _, weight = part.partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            continue
        if quality > 0 and (tag := _known(name)) is not None:
            wanted.append((-quality, place, tag))
    return min(wanted)[2] if wanted else None


def _known(text: str) -> Tag | None:
    """Return the language of the interface that a tag asks for, whatever script and region it names."""
    try:
        tag = parse_tag(text)
    except ValueError:
        return None
    if tag.script == "Latn" and tag != ENGLISH:  # a romanised language: nobody writes the interface so
        return None
    return LANGUAGES[tag.language].tag
