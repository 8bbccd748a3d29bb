"""Who does a task that was asked for lately in the same words: as with grants, that stays until the market changes.

Programs say the same of language and service with each text. Kept is what comes of that for a task whose service is
named by its listing's own name; which one is the best at the moment is asked anew each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway.doors.ulca.protocol import encode
from haat.gateway.languages import languages_of

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.doors.ulca.tasks import Step
    from haat.gateway.gateway import Gateway

_MOST = 1024
_LONGEST = 2048


class Settled:
    """One task, by whom, and the native body around its items."""

    __slots__ = ("_after", "languages", "step")

    def __init__(self, step: Step) -> None:
        options = step.options()
        self.step = step
        self.languages: str = languages_of(options)
        self._after: bytes = b',"config":%b}' % encode(options) if options else b"}"

    def body(self, items: list[dict[str, object]]) -> bytes:
        """Return the native call's body."""
        return b'{"input":%b%b' % (encode(items), self._after)


class SettledTasks:
    """What was settled lately, by application and the words of the request."""

    def __init__(self) -> None:
        self._generation = -1
        self._known: dict[tuple[str, bytes], Settled] = {}

    def find(self, gateway: Gateway, call: Call, words: bytes) -> Settled | None:
        """Return what came of these words, None when they are new or the market has changed since."""
        credential = call.credential
        assert credential is not None
        if self._generation != gateway.directory.generation:
            self._generation = gateway.directory.generation
            self._known.clear()
        return self._known.get((credential.application, words))

    def keep(self, gateway: Gateway, call: Call, words: bytes, settled: Settled) -> None:
        """Keep this for the next time, if it will be the same then."""
        credential = call.credential
        assert credential is not None
        named = (settled.step.config.service_id or "").partition("@")[0]
        if len(words) > _LONGEST or named not in gateway.directory.services:
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[credential.application, words] = settled
