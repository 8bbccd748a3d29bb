"""Jobs, and the files and batches of OpenAI's protocol: taken here by key, kept by another process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haat.gateway.doors.handing import hand_on, spool_body
from haat.gateway.doors.openai.protocol import OpenAIOperation
from haat.gateway.doors.operation import Operation
from haat.gateway.doors.ulca.protocol import UlcaOperation
from haat.kernel.errors import HaatError

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.doors.visit import Visit
    from haat.gateway.gateway import Gateway

MAX_BYTES = 101 * 1024 * 1024
"""100 MiB of a file, and what a form has around it."""
_encode = msgspec.json.Encoder().encode


class _HandedOn(Operation):
    """A large body goes to a file on the gateway's disk until it is here whole."""

    needs_whole = False
    unfolds = False
    body_limit = MAX_BYTES

    def look(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        spool_body(gateway, call, visit)
        return False

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        spool_body(gateway, call, visit)
        hand_on(gateway, call, visit)
        return False


class Jobs(_HandedOn):
    name = "jobs"

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        return b"application/problem+json", _encode(error.problem(request_id))


class Batches(_HandedOn, OpenAIOperation):
    name = "openai files and batches"


class Polling(_HandedOn, UlcaOperation):
    name = "ulca polling"


_METHODS = (b"GET", b"POST", b"DELETE")
_jobs, _batches, _polling = Jobs(), Batches(), Polling()
OPERATIONS: dict[tuple[bytes, bytes], Operation] = {
    **{(method, b"/v1/jobs" + rest): _jobs for method in _METHODS for rest in (b"", b"/*")},
    **{
        (method, b"/v1/" + name + rest): _batches
        for method in _METHODS
        for name in (b"files", b"batches")
        for rest in (b"", b"/*")
    },
    **{(method, b"/services/inference/poll" + rest): _polling for method in (b"GET", b"POST") for rest in (b"", b"/*")},
}
