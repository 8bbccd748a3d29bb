"""Which service does a task: the one that is named, or the best for the languages of those subscribed to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from haat.gateway.doors.bodies import wrong_field
from haat.gateway.doors.names import best, speaks
from haat.gateway.doors.ulca.languages import readings
from haat.gateway.doors.ulca.tasks import Step, Task
from haat.gateway.market.scopes import require
from haat.kernel.errors import NotSubscribed, ServiceNotFound, UnsupportedLanguage

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route
    from haat.gateway.market.snapshot import Service, Version

ALIASES = {
    "ai4bharat/indictrans-v2-all-gpu--t4": "translation",
    "ai4bharat/indicxlit--cpu-fsv2": "transliteration",
    "bhashini/ai4bharat/conformer-multilingual-asr": "asr",
    "ai4bharat/indic-tts-coqui-indo_aryan-gpu--t4": "tts",
    "bhashini/indic-lang-detection-all": "txt-lang-detection",
    "bhashini/ai4bharat/indic-ner": "ner",
    "bhashini/iiith-bhasha-ocr": "ocr",
    "bhashini/iiith-ocr-sceneText-all": "ocr",
    "bhashini/iiith/ocr-hw-bhaasha": "ocr",
}
"""Names that clients have written into them, and the task each stands for: the best service for it is meant."""
_NLP = ("nlp", "custom")
MOST_SHOWN = 100


def find(gateway: Gateway, call: Call, step: Step, service_id: str) -> None:
    """Set a step's route, and its languages to what the service takes them for.

    Raise ServiceNotFound, UnsupportedLanguage, ValidationFailed for a service that does something else, or
    NotSubscribed where none is named: whether one that is may be called is seen when it is.
    """
    step.route = (
        _named(gateway, call, step, service_id) if _is_a_name(gateway, step, service_id) else _best(gateway, call, step)
    )


def check_subscribed(gateway: Gateway, call: Call, step: Step) -> None:
    """Refuse a step in a row that would be refused only after those before it are done and billed.

    Raise NotSubscribed or OutOfScope.
    """
    credential, service = call.credential, step.route.service
    assert credential is not None
    require(credential, service)
    if (credential.application, service.id) not in gateway.directory.subscriptions:
        raise NotSubscribed(f"The application is not subscribed to {service.path}, which is to do {step.task.name}.")


def _is_a_name(gateway: Gateway, step: Step, service_id: str) -> bool:
    """Tell whether this names one service: a listing, or what a listing says that it is called too."""
    if not service_id:
        return False
    meant = ALIASES.get(service_id)
    if meant is None or gateway.names.knows(gateway, service_id):
        return True
    if meant != step.task.name:
        raise wrong_field(f"{step.place}.serviceId", f"is a name for {meant}, not for {step.task.name}")
    return False


def _named(gateway: Gateway, call: Call, step: Step, service_id: str) -> Route:
    field = f"{step.place}.serviceId"
    try:
        route = gateway.names.find(gateway, call, service_id)
    except ServiceNotFound as error:
        raise ServiceNotFound(f"{field}: {error.detail}", field=field) from error
    service, task = route.service, step.task
    if not _may_do(service, task):
        raise wrong_field(field, f"is {service.path}, which does not do {task.name}")
    if not route.version.takes_tasks:
        raise wrong_field(field, f"is {service.path}, which does not speak the task schema")
    for source, target in readings(task.name, step.source, step.target):
        if speaks(route.version, source, target) or task.languages == "none":
            step.source, step.target = source, target
            return route
    raise _unsupported(step, [(service, route.version)])


def _may_do(service: Service, task: Task) -> bool:
    """Tell whether a service may be named for a task: one that says nothing of what it can is believed."""
    return _does(service, task) or bool(task.capability and not service.policy.capability and service.category in _NLP)


def _best(gateway: Gateway, call: Call, step: Step) -> Route:
    task = step.task
    there = list(offered(gateway, task))
    if not there:
        raise ServiceNotFound(f"No service here does {task.name}.")
    for source, target in readings(task.name, step.source, step.target):
        found = [service for service, version in there if task.languages == "none" or speaks(version, source, target)]
        if found:
            step.source, step.target = source, target
            return gateway.routes.find(best(gateway, call, found).path.encode("ascii"))
    raise _unsupported(step, there)


def offered(gateway: Gateway, task: Task) -> Iterator[tuple[Service, Version]]:
    """Yield who does a task for everybody, each with the version that is called when none is named."""
    for service in gateway.directory.services.values():
        if service.status != "published" or service.visibility != "public" or not _does(service, task):
            continue
        for version in service.versions:
            if version.version == service.default_version and version.takes_tasks:
                yield service, version


def _does(service: Service, task: Task) -> bool:
    said = service.policy.capability
    return said == task.capability if task.capability else service.category == task.category and said not in task.others


def _unsupported(step: Step, there: list[tuple[Service, Version]]) -> UnsupportedLanguage:
    wanted = f"{step.source}>{step.target}" if step.task.languages == "pair" else step.source
    known = sorted({tag for _, version in there for tag in version.language_pairs or version.languages})
    return UnsupportedLanguage(
        f"{step.place}.language: nobody here does {step.task.name} for {wanted[:80]}; `supported` has what there is.",
        field=f"{step.place}.language",
        supported=known[:MOST_SHOWN],
    )
