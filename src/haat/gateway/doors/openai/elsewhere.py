"""What the protocol has at other addresses: said in its own shape not to be here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway.doors.openai.protocol import OpenAIOperation
from haat.gateway.doors.visit import Visit
from haat.kernel.errors import NotFound

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

_BELOW = (
    "assistants",
    "audio",
    "chat",
    "completions",
    "conversations",
    "embeddings",
    "fine_tuning",
    "images",
    "models",
    "moderations",
    "realtime",
    "responses",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
)
_METHODS = (b"GET", b"POST", b"DELETE")


class Elsewhere(OpenAIOperation):
    """Nothing is kept here that could be asked for again, and no files are taken."""

    name = "openai elsewhere"
    open_to_all = True

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        method = call.method.decode("ascii")
        raise NotFound(f"Nothing here answers {method} at this address: docs/openai.md lists what is spoken.")


OPERATIONS = {
    (method, f"/v1/{name}{rest}".encode("ascii")): Elsewhere()
    for method in _METHODS
    for name in _BELOW
    for rest in ("", "/*")
}
