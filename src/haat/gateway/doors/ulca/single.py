"""``POST /services/inference/{task}?serviceId=``: one task at an address of its own, and speech to speech."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from haat.gateway.doors.bodies import read_body, wrong_field
from haat.gateway.doors.ulca.chain import Items, become, begin, settle
from haat.gateway.doors.ulca.content import items_of
from haat.gateway.doors.ulca.later import take_for_later
from haat.gateway.doors.ulca.protocol import ChainOperation
from haat.gateway.doors.ulca.services import ALIASES
from haat.gateway.doors.ulca.settled import Settled
from haat.gateway.doors.ulca.shapes import Config, Inputs
from haat.gateway.doors.ulca.tasks import TASKS, Step, item
from haat.gateway.doors.visit import Visit

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway


class _Body(Inputs):
    config: Config | None = None


_decoder = msgspec.json.Decoder(_Body)


def service_named(call: Call, config: Config) -> str:
    """Return the ``serviceId`` of the query, else of the config; empty when there is none."""
    query = call.target.partition(b"?")[2].decode("utf-8", "replace")
    return dict(parse_qsl(query)).get("serviceId") or config.service_id or ""


class OneTask(ChainOperation):
    """One of the tasks; its part of the answer is the answer."""

    def __init__(self, task: str) -> None:
        self.name = f"ulca {task}"
        self._task = TASKS[task]

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        if take_for_later(gateway, call, visit):
            return False
        asked: _Body = read_body(_decoder, call)
        step = Step(self._task, asked.config or Config(), "config")
        settle(gateway, call, [step], [service_named(call, step.config)])
        given = items_of(asked, self._task.takes, step.config, "", "config")
        become(call, visit, Settled(step), given, _bare)
        return True


def _bare(parts: Items) -> dict[str, Any]:
    return parts[0]


class SpeechToSpeech(ChainOperation):
    """What is said in one language is said in another one: by three services, each the best for its part."""

    name = "ulca s2s"

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        if take_for_later(gateway, call, visit):
            return False
        asked: _Body = read_body(_decoder, call)
        config = asked.config or Config()
        named = service_named(call, config)
        if named and named not in ALIASES:
            raise wrong_field("serviceId", "must be left out: three services do this, each the best for its part")
        spoken = msgspec.structs.replace(config, language=None, audio_format=None)  # in the language it is told in
        options = {"asr": config, "translation": config, "tts": spoken}
        steps = [Step(TASKS[name], said, "config") for name, said in options.items()]
        settle(gateway, call, steps, ["", "", ""])
        given = items_of(asked, "audio", config, "", "config")
        begin(gateway, call, visit, steps, given, _spoken)
        return False


def _spoken(parts: Items) -> dict[str, Any]:
    _, translation, speech = parts
    return item("s2s", translation["output"], speech["audio"], speech["config"])


SINGLES = {
    **{name: OneTask(name) for name in TASKS if name != "txt-lang-detection"},
    "s2s": SpeechToSpeech(),
}
