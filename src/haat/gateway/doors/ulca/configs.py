"""``POST /ulca/apis/v0/model/getModelsPipeline``: which services do these tasks, for which languages.

Without a key the answer says what the market has; with one, what its application may call, and where.
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from haat.gateway.doors.bodies import read_body
from haat.gateway.doors.names import in_order, may_call, none_of
from haat.gateway.doors.pipeline import MOST_STAGES
from haat.gateway.doors.ulca.languages import readings, tags_of
from haat.gateway.doors.ulca.protocol import UlcaOperation, encode, refusal
from haat.gateway.doors.ulca.services import offered
from haat.gateway.doors.ulca.shapes import Config
from haat.gateway.doors.ulca.shapes import Task as AskedTask
from haat.gateway.doors.ulca.tasks import GENDERS, TASKS, Task
from haat.gateway.doors.visit import Visit
from haat.gateway.stages import authenticate
from haat.infra.ulca import code_of, language_of
from haat.kernel.errors import HaatError, InvalidRequest, Overloaded

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.snapshot import Service, Version

CONFIG_TASKS = ("translation", "asr", "tts", "transliteration", "ocr")
COMPUTE, FEEDBACK = "/services/inference/pipeline", "/services/feedback/submit"
SAMPLING_RATE = 22_050
"""What speech mostly comes at; the compute call's answer says what it did come at."""


class _Body(msgspec.Struct, rename="camel"):
    pipeline_tasks: list[AskedTask]


class Row(NamedTuple):
    """Who does a task from one language to another. ``shown`` is how the caller wrote the two."""

    source: str
    target: str
    service: Service
    shown: tuple[str, str]


class ModelsPipeline(UlcaOperation):
    """The config call. It may be made without a key: then it names no address to call, and nobody's key."""

    name = "ulca getModelsPipeline"
    open_to_all = True
    body_limit = 64 * 1024
    _decoder = msgspec.json.Decoder(_Body)

    def enter(self, gateway: Gateway, call: Call, visit: Visit) -> bool:
        if call.bearer or call.api_key:
            authenticate(gateway, call)
        elif not gateway.directory.loaded:
            raise Overloaded("The gateway has only just started and does not know its market yet.")
        asked: _Body = read_body(self._decoder, call, _wrong_field)
        if not 1 <= len(asked.pipeline_tasks) <= MOST_STAGES:
            raise _wrong_field("pipelineTasks", f"must be a list of 1 to {MOST_STAGES} tasks")
        tasks, columns = [], []
        for index, wanted in enumerate(asked.pipeline_tasks):
            place = f"pipelineTasks[{index}]"
            if wanted.task_type not in CONFIG_TASKS:
                raise _wrong_field(f"{place}.taskType", f"must be one of {', '.join(CONFIG_TASKS)}")
            tasks.append(TASKS[wanted.task_type])
            columns.append(_rows(gateway, call, tasks[-1], wanted.config or Config(), f"{place}.config"))
        _link(columns)
        visit.answer(call, encode({**_body(tasks, columns), **_addresses(gateway, call)}))
        return False

    def problem(self, error: HaatError, request_id: str) -> tuple[bytes, bytes]:
        """Return a refusal as this address gives it: ``code`` is the status, ours is in ``detail``."""
        code = f"{error.status} {HTTPStatus(error.status).name}"
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return b"application/json", encode({**refusal(error, request_id), "code": code, "timestamp": now})


def _wrong_field(field: str, message: str) -> HaatError:
    return InvalidRequest(f"{field}: {message}", field=field)


# --- who does what ------------------------------------------------------------------------------


def _rows(gateway: Gateway, call: Call, task: Task, asked: Config, place: str) -> list[Row]:
    """Return who does a task, one a pair of languages, of those that were asked for."""
    source, target = tags_of(asked)
    known = _known(gateway, call, task)
    for one, other in readings(task.name, source, target):
        rows = [
            Row(*pair, service, (source, target) if source and target else pair)
            for pair, service in known.pairs.items()
            if one in ("", pair[0]) and (other in ("", pair[1]) or task.languages == "one")
        ]
        if rows:
            return rows
        if one and (other or task.languages == "one") and known.of_any is not None:
            return [Row(one, other or one, known.of_any, (source, target))]
    wanted = ">".join(filter(None, (source, target))) or "any language"
    raise _wrong_field(f"{place}.language", f"nobody here does {task.name} for {wanted[:80]}")


class _Known(NamedTuple):
    """Who does a task: for each pair of languages, and for those that nobody has named."""

    pairs: dict[tuple[str, str], Service]
    of_any: Service | None


def _known(gateway: Gateway, call: Call, task: Task) -> _Known:
    """Return who does a task for the caller: whoever is subscribed to, or everybody for one without a key.

    The latter is kept, so that it costs strangers' calls next to nothing, however large the market.
    """
    if call.credential is None:
        found: _Known = gateway.names.kept(
            gateway, f"ulca {task.name}", call.started, lambda: _first_of_each(gateway, call, task, None)
        )
        return found
    doing = [service for service, _ in offered(gateway, task)]
    mine = may_call(gateway, call.credential, doing)
    if doing and not mine:
        raise none_of(gateway, call, doing, task.name)
    return _first_of_each(gateway, call, task, mine)


def _first_of_each(gateway: Gateway, call: Call, task: Task, mine: list[Service] | None) -> _Known:
    versions = {service.path: (service, version) for service, version in offered(gateway, task)}
    services = [service for service, _ in versions.values()] if mine is None else mine
    pairs: dict[tuple[str, str], Service] = {}
    of_any = None
    for service in in_order(gateway, call, services):
        named = _pairs(task, versions[service.path][1])
        if not named:
            of_any = of_any or service
        for pair in named:
            pairs.setdefault(pair, service)
    return _Known(dict(sorted(pairs.items())), of_any)


def _pairs(task: Task, version: Version) -> list[tuple[str, str]]:
    """Return from what to what a version does a task; a task in one language goes from it to itself."""
    if task.languages == "one":
        return [(one, one) for one in version.languages]
    return [(one, other) for one, _, other in (pair.partition(">") for pair in version.language_pairs)]


def _link(columns: list[list[Row]]) -> None:
    """Leave of each task what a whole chain can go through; where the languages don't meet, all of it stays."""
    for number in range(1, len(columns)):
        reached = {row.target for row in columns[number - 1]}
        columns[number] = [row for row in columns[number] if row.source in reached] or columns[number]
    for number in range(len(columns) - 2, -1, -1):
        wanted = {row.source for row in columns[number + 1]}
        columns[number] = [row for row in columns[number] if row.target in wanted] or columns[number]


# --- the answer ---------------------------------------------------------------------------------


def _body(tasks: list[Task], columns: list[list[Row]]) -> dict[str, Any]:
    configs = [
        {"taskType": task.name, "config": [_config(task, row) for row in rows]}
        for task, rows in zip(tasks, columns, strict=True)
    ]
    return {"languages": _languages(columns), "pipelineResponseConfig": configs}


def _config(task: Task, row: Row) -> dict[str, Any]:
    source, target = row.shown
    said = {
        "serviceId": row.service.path,
        "modelId": row.service.id,
        "language": language_of(source, target if task.languages == "pair" else ""),
        "domain": ["general"],
    }
    return {**said, "supportedVoices": list(GENDERS), "samplingRate": SAMPLING_RATE} if task.name == "tts" else said


def _languages(columns: list[list[Row]]) -> list[dict[str, Any]]:
    """Return from which languages the whole chain leads to which."""
    ends: dict[str, set[str]] = {}
    for rows in reversed(columns):
        begins: dict[str, set[str]] = {}
        for row in rows:
            begins.setdefault(row.source, set()).update(ends.get(row.target) or {row.target})
        ends = begins
    shown: dict[str, set[str]] = {}
    for source, targets in ends.items():
        shown.setdefault(code_of(source)[0], set()).update(code_of(target)[0] for target in targets)
    return [{"sourceLanguage": source, "targetLanguageList": sorted(shown[source])} for source in sorted(shown)]


def _addresses(gateway: Gateway, call: Call) -> dict[str, Any]:
    address = gateway.settings.gateway_address.rstrip("/")
    said: dict[str, Any] = {"feedbackUrl": address + FEEDBACK}
    if call.credential is not None:
        key = {"name": "Authorization", "value": (call.bearer or call.api_key).decode("ascii")}
        common = {"inferenceApiKey": key, "isMultilingualEnabled": True}
        said["pipelineInferenceAPIEndPoint"] = {"callbackUrl": address + COMPUTE, **common, "isSyncApi": True}
        socket = "ws" + address.removeprefix("http")  # https becomes wss
        said["pipelineInferenceSocketEndPoint"] = {"callbackUrl": socket, **common, "isSyncApi": False}
    return said
