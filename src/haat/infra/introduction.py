"""How the gateway introduces a caller, whom it knows by his key, to a process that works for callers.

The headers are signed with a key that both derive from the master key, so that whoever can reach the other
process's socket still can't speak for anybody. An introduction is good for one request at one address.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass

from haat.infra.keyring import Keyring
from haat.kernel.errors import Unauthenticated

HEADERS = ("x-haat-caller", "x-haat-caller-signature")
GOOD_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Introduced:
    """Ids as texts; ``test`` for test keys, ``request`` the request's id."""

    org: str
    application: str
    credential: str
    test: bool
    request: str


class Introductions:
    """Makes and reads them; made once a process."""

    def __init__(self, keyring: Keyring) -> None:
        self._key = keyring.derive("caller-introductions")

    def make(self, who: Introduced, method: str, target: str) -> list[tuple[str, str]]:
        """Return the two headers that introduce somebody for one request."""
        said = " ".join(
            (
                who.org,
                who.application,
                who.credential,
                "test" if who.test else "live",
                who.request,
                str(int(time.time())),
            )
        )
        return [(HEADERS[0], said), (HEADERS[1], self._sign(said, method, target))]

    def read(self, headers: Mapping[str, str], method: str, target: str) -> Introduced:
        """Return who is introduced; raise Unauthenticated when nobody is, or not for this."""
        said, signature = (headers.get(name, "") for name in HEADERS)
        parts = said.split(" ")
        if len(parts) != 6 or not hmac.compare_digest(
            self._sign(said, method, target).encode(), signature.encode("utf-8", "replace")
        ):
            raise Unauthenticated
        org, application, credential, mode, request, at = parts
        if abs(time.time() - int(at)) > GOOD_SECONDS:
            raise Unauthenticated
        return Introduced(org, application, credential, mode == "test", request)

    def _sign(self, said: str, method: str, target: str) -> str:
        return hmac.new(self._key, f"{method} {target}\n{said}".encode(), "sha256").hexdigest()
