"""Chat completions, completions of texts and responses: passed on to who speaks them, whatever they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haat.gateway.doors.bodies import read_body
from haat.gateway.doors.openai.protocol import DIALECT, OpenAIOperation, pass_on, wrong_field, wrong_service
from haat.gateway.doors.visit import Visit

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway


class _Named(msgspec.Struct):
    model: str


_named = msgspec.json.Decoder(_Named)


class _Passing(OpenAIOperation):
    """Only the model's name is read; streams, tool calls and fields that nobody here knows go by as they are."""

    tail = b""
    gives = ""

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        asked: _Named = read_body(_named, call, wrong_field)
        route = gateway.names.find(gateway, call, asked.model)
        if route.executing.dialect != DIALECT:
            raise wrong_service(route, self.gives)
        pass_on(call, visit, route, self.tail)
        return True


class ChatCompletions(_Passing):
    """``POST /v1/chat/completions``, whole or as a stream."""

    name = "openai chat.completions"
    tail = b"/chat/completions"
    gives = "chat completions"


class Completions(_Passing):
    """``POST /v1/completions``: the older shape, of a text that is gone on with."""

    name = "openai completions"
    tail = b"/completions"
    gives = "completions"


class Responses(_Passing):
    """``POST /v1/responses``, whole or as a stream of typed events."""

    name = "openai responses"
    tail = b"/responses"
    gives = "responses"
