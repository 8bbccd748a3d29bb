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
_DIGEST_BYTES = 24


def new_visit() -> str:
    """Return a random name for a browser that has not signed in (128 bits)."""
    return secrets.token_urlsafe(16)


def form_token(keyring: Keyring, holder: str) -> str:
    """Return the token of the forms of one session or visit, in other letters each time.

    Answers are compressed, and what is the same in each of them could be guessed letter by letter from their lengths
    by who makes a browser ask for an address of his (BREACH). So the digest goes out under a random mask, with it.
    """
    digest = _digest(keyring, holder)
    mask = secrets.token_bytes(len(digest))
    return base64.urlsafe_b64encode(mask + _masked(digest, mask)).decode()


def fits(keyring: Keyring, holder: str, token: str) -> bool:
    """Tell whether a token belongs to a session or visit, in constant time."""
    try:
        sent = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except ValueError:  # not base64, or no text that could be
        return False
    mask, masked = sent[:_DIGEST_BYTES], sent[_DIGEST_BYTES:]
    digest = _digest(keyring, holder)
    return bool(holder) and len(masked) == _DIGEST_BYTES and hmac.compare_digest(_masked(masked, mask), digest)


def _digest(keyring: Keyring, holder: str) -> bytes:
    return hmac.digest(keyring.derive("portal-forms"), holder.encode(), "sha256")[:_DIGEST_BYTES]


def _masked(text: bytes, mask: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(text, mask, strict=True))
