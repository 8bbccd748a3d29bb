"""Tokens that tie a form to the browser it was made for.

A form's token is an HMAC over what only that browser holds: its session, or, before sign-in, a
random visit cookie. Another site can make a browser send the cookie, but can't know the token.
"""

from __future__ import annotations

import base64
import hmac
import secrets

from haat.infra.keyring import Keyring

FIELD = "form_token"
VISIT_COOKIE = "haat_visit"


def new_visit() -> str:
    """Return a random name for a browser that has not signed in (128 bits)."""
    return secrets.token_urlsafe(16)


def form_token(keyring: Keyring, holder: str) -> str:
    """Return the token of the forms of one session or visit."""
    digest = hmac.digest(keyring.derive("portal-forms"), holder.encode(), "sha256")
    return base64.urlsafe_b64encode(digest[:24]).decode()


def fits(keyring: Keyring, holder: str, token: str) -> bool:
    """Tell whether a token belongs to a session or visit, in constant time."""
    return bool(holder) and hmac.compare_digest(form_token(keyring, holder).encode(), token.encode())
