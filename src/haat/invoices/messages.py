"""Messages of payment providers: that one is theirs, whole and of now (Standard Webhooks 1.0)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime

from haat.kernel.errors import InvalidRequest

TOLERANCE_SECONDS = 300
_PREFIX = "whsec_"
_SHORTEST_SECRET = 24


class NotTheirs(InvalidRequest):
    """The message's signature doesn't fit: nothing of it is believed."""


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: datetime) -> str:
    """Return a message's id when one of its signatures fits one of the secrets; raise NotTheirs otherwise.

    A message of more than five minutes ago, or ahead, is refused: who has recorded one can't send it again later.
    """
    message, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "")
    if not message or len(message) > 200 or not message.isascii() or not given:
        raise NotTheirs("Send webhook-id, webhook-timestamp and webhook-signature, as Standard Webhooks has them.")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12):
        raise NotTheirs("webhook-timestamp is the seconds since 1970.")
    if abs(now.timestamp() - int(stamp)) > TOLERANCE_SECONDS:
        raise NotTheirs("The message is of another time: send it within five minutes of its webhook-timestamp.")
    content = b"%b.%b.%b" % (message.encode(), stamp.encode(), body)
    signatures = [one.removeprefix("v1,") for one in given.split(" ") if one.startswith("v1,")]
    for secret in secrets:
        expected = hmac.new(_key(secret), content, hashlib.sha256).digest()
        for signature in signatures:
            try:
                received = base64.b64decode(signature, validate=True)
            except (ValueError, binascii.Error):
                continue
            if hmac.compare_digest(expected, received):
                return message
    raise NotTheirs("None of the signatures fits the message.")


def _key(secret: str) -> bytes:
    key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    if len(key) < _SHORTEST_SECRET:
        raise ValueError(f"a secret has at least {_SHORTEST_SECRET} bytes")
    return key
