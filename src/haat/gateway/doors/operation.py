"""What a protocol lets its clients ask for at one address."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from haat.kernel.errors import HaatError

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.doors.visit import Visit
    from haat.gateway.gateway import Gateway
    from haat.gateway.http.answers import Whole
    from haat.gateway.http.streams import Rewriter


class Operation(ABC):
    """What a protocol lets its clients ask for at one address. One object serves all calls, and keeps nothing."""

    name: str = ""
    """The protocol and what it calls this, as in ``openai embeddings``."""
    open_to_all: bool = False
    """Asked without a key: nobody's call, and about nobody."""
    body_limit: int = 0
    """Most bytes that its requests have; 0 for as many as any call's."""

    takes_parts: bool = False
    """Whether a task may be answered it in several parts, which `stream` gives the protocol's shape."""

    needs_whole = True
    """Whether `enter` wants the whole body; where not, `look` is shown a large one as it comes."""
    unfolds = True
    """Whether `enter` wants a body as it was before its ``Content-Encoding``."""
    id_header = b""
    """Under which name, beside our own, clients look for the id of their request."""

    def look(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        """Look at what has come of a large body; return True when `enter` may be called without the rest of it.

        What is in ``call.body`` may be taken away. Raise HaatError for what can't be done.
        """
        return False

    @abstractmethod
    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        """Take a request that is here whole, from a caller who is known unless it is open to all.

        Return True when it has been made the native call it stands for, with `Visit.become` or `Visit.pass_on`; False
        when it was answered here, with `Visit.answer`, or will be. Raise HaatError for what can't be done: it is
        answered as `problem` says.
        """

    def leave(self, call: Call, visit: Visit, answer: Whole) -> None:  # noqa: B027  # passed on, it needs no shape
        """Give a native answer that is good the protocol's shape, in place; raise HaatError when it can't have it."""

    def stream(self, call: Call, visit: Visit, before: Rewriter | None) -> Rewriter | None:
        """Return what gives a native stream of events the protocol's shape, behind what already looks at it."""
        return before

    @abstractmethod
    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        """Return the content type and the body of a refusal."""

    def error_event(self, error: HaatError, request_id: str) -> bytes:
        """Return the event that ends a stream which can't go on, ``data:`` and empty line included."""
        return b"data: %b\n\n" % self.problem(error, request_id)[1]
