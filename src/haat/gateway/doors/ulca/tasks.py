"""What can be asked for: each of ULCA's tasks, the services that do it, and its answer in ULCA's shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from haat.gateway.doors.bodies import wrong_field
from haat.gateway.doors.ulca.content import pcm_of
from haat.gateway.doors.ulca.shapes import Config
from haat.infra.ulca import language_of, sample_rate_of
from haat.kernel.errors import ProviderFailed
from haat.language import UNDETERMINED

if TYPE_CHECKING:
    from haat.gateway.market.routes import Route

Kind = Literal["text", "audio", "image", "nothing"]
Outputs = Sequence[Mapping[str, Any]]
GENDERS = ("female", "male")
_OUR_NAMES = {"ogg": "opus"}
_THEIR_NAMES = {"opus": "ogg"}
"""Their name for Opus is that of the file it is in."""
_NO_TEXT = {"text": ""}
SUGGESTIONS = 5
"""How many ways of writing a word are shown when nobody says."""


class Step:
    """One task as it was asked for, and who does it. ``place`` is where in the request it stands, for refusals.

    ``source`` and ``target`` are tags (``hi-Deva``), empty where none was named.
    """

    __slots__ = ("config", "place", "route", "source", "target", "task")

    route: Route

    def __init__(self, task: Task, config: Config, place: str) -> None:
        self.task, self.config, self.place = task, config, place
        self.source = self.target = ""

    def options(self) -> dict[str, Any]:
        """Return the task schema's ``config``; raise ValidationFailed for what can't be had."""
        return self.task.options(self)


Options = Callable[[Step], dict[str, Any]]
Answer = Callable[[Step, list[str], Outputs], dict[str, Any]]


class Task:
    """A kind of task.

    ``capability`` narrows a category that has several kinds of services; ``others`` are capabilities in the category
    that mean something else. ``silence`` is what it makes of an empty text that another task gave it, unasked.
    """

    __slots__ = (
        "answer",
        "capability",
        "category",
        "gives",
        "languages",
        "name",
        "options",
        "others",
        "silence",
        "takes",
    )

    def __init__(
        self,
        name: str,
        category: str,
        takes: Kind,
        gives: Kind,
        options: Options,
        answer: Answer,
        capability: str = "",
        others: frozenset[str] = frozenset(),
        languages: Literal["none", "one", "pair"] = "one",
        silence: Mapping[str, Any] = _NO_TEXT,
    ) -> None:
        self.name, self.category, self.takes, self.gives = name, category, takes, gives
        self.options, self.answer = options, answer
        self.capability, self.others, self.languages, self.silence = capability, others, languages, silence


def item(task: str, output: list[dict[str, Any]] | None, audio: Any = None, config: Any = None) -> dict[str, Any]:
    """Return one task's part of the answer, nulls included."""
    return {"taskType": task, "config": config, "output": output, "audio": audio}


def member(output: Mapping[str, Any], *names: str) -> str:
    """Return the first of these members that is a text; raise ProviderFailed when there is none."""
    for name in names:
        value = output.get(name)
        if isinstance(value, str):
            return value
    raise ProviderFailed(f"The provider's answer holds no `{names[0]}`; the call is not billed.")


# --- options ------------------------------------------------------------------------------------


def _pair(step: Step) -> dict[str, Any]:
    return {"source": step.source, "target": step.target}


def _one(step: Step) -> dict[str, Any]:
    return {"language": step.source} if step.source else {}


def _none(step: Step) -> dict[str, Any]:
    return {}


def _recognition(step: Step) -> dict[str, Any]:
    wanted = step.config.transcription_format
    if wanted is not None and wanted.value not in (None, "", "transcript"):
        raise wrong_field(f"{step.place}.transcriptionFormat.value", "must be `transcript`")
    return _one(step)


def _speech(step: Step) -> dict[str, Any]:
    gender = (step.config.gender or "").lower()
    if gender and gender not in GENDERS:
        raise wrong_field(f"{step.place}.gender", f"must be {' or '.join(GENDERS)}")
    said = _one(step)
    if gender:
        said["voice"] = gender
    form = _sound_format(step)
    if form:
        said["format"] = form
    return said


def _sound_format(step: Step) -> str:
    """Return the format that a service is asked for, empty for the WAV file that all give; raise ValidationFailed."""
    wanted, given = (step.config.audio_format or "wav").lower(), step.route.version.policy.audio_formats
    form = _OUR_NAMES.get(wanted, wanted)
    if form == "wav" or (form == "pcm" and form not in given):
        return ""
    if form not in given:
        there = dict.fromkeys((*(_THEIR_NAMES.get(one, one) for one in given), "wav", "pcm"))
        raise wrong_field(f"{step.place}.audioFormat", f"must be one of {', '.join(there)}")
    return form


# --- answers ------------------------------------------------------------------------------------


def _translation(step: Step, sources: list[str], outputs: Outputs) -> dict[str, Any]:
    pairs = zip(sources, outputs, strict=True)
    return item(step.task.name, [{"source": source, "target": member(output, "text")} for source, output in pairs])


def _transliteration(step: Step, sources: list[str], outputs: Outputs) -> dict[str, Any]:
    shown = []
    most = max(step.config.num_suggestions or SUGGESTIONS, 1)
    for source, output in zip(sources, outputs, strict=True):
        further = output.get("suggestions")
        texts = [member(output, "text"), *(further if isinstance(further, list) else ())]
        shown.append({"source": source, "target": list(dict.fromkeys(map(str, texts)))[:most]})
    return item(step.task.name, shown)


def _transcript(step: Step, sources: list[str], outputs: Outputs) -> dict[str, Any]:
    texts = [{"source": member(output, "text"), "nBestTokens": None} for output in outputs]
    return item(step.task.name, texts)


def _sound(step: Step, sources: list[str], outputs: Outputs) -> dict[str, Any]:
    sounds: list[dict[str, Any]] = []
    rate, form = None, _sound_format(step) or "wav"
    for output in outputs:
        audio = output.get("audio")
        if not isinstance(audio, dict):
            raise ProviderFailed("The provider's answer holds no `audio`; the call is not billed.")
        content = member(audio, "content")
        rate = audio.get("sample_rate") or sample_rate_of(content) or None
        if content:
            form = str(audio.get("format", "wav"))
        if (step.config.audio_format or "").lower() == "pcm" and content and form == "wav":
            content, form = pcm_of(content), "pcm"
        sounds.append({"audioContent": content, "audioUri": None})
    config = {
        "language": language_of(step.source, ""),
        "gender": step.config.gender,
        "audioFormat": _THEIR_NAMES.get(form, form),
        "encoding": "base64",
        "samplingRate": rate,
    }
    return item(step.task.name, None, sounds, config)


def _entities(step: Step, sources: list[str], outputs: Outputs) -> dict[str, Any]:
    shown = []
    for source, output in zip(sources, outputs, strict=True):
        try:
            tokens = [_token(index, token) for index, token in enumerate(output.get("tokens", ()))]
            entities = [{"text": one["text"], "label": one["label"]} for one in output["entities"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise ProviderFailed("The provider's answer holds no entities; the call is not billed.") from error
        shown.append({"source": source, "nerPrediction": tokens, "entities": entities})
    return item(step.task.name, shown)


def _token(index: int, token: Mapping[str, Any]) -> dict[str, Any]:
    shown = {
        "token": token["token"],
        "tag": token["tag"],
        "tokenIndex": index,
        "tokenStartIndex": token["start"],
        "tokenEndIndex": token["end"],
    }
    return {**shown, "score": token["score"]} if "score" in token else shown


def _detection(step: Step, sources: list[str], outputs: Outputs) -> dict[str, Any]:
    shown = []
    for source, output in zip(sources, outputs, strict=True):
        code, _, script = member(output, "language").partition("-")
        score = output.get("confidence", 0.0)
        found = {"langCode": code, "ScriptCode": output.get("script") or script, "langScore": score}
        shown.append({"source": source, "langPrediction": [found]})
    return item(step.task.name, shown)


def _reading(step: Step, sources: list[str], outputs: Outputs) -> dict[str, Any]:
    return item(step.task.name, [{"source": member(output, "text")} for output in outputs])


def _voices(step: Step, sources: list[str], outputs: Outputs) -> dict[str, Any]:
    shown = []
    for output in outputs:
        try:
            spans = [{"start": one["start"], "end": one["end"]} for one in output["segments"]]
        except (KeyError, TypeError) as error:
            raise ProviderFailed("The provider's answer holds no segments; the call is not billed.") from error
        shown.append({"timestamps": spans})
    return item(step.task.name, shown)


_NO_SOUND = {"audio": {"content": "", "format": "wav"}}
_NO_LANGUAGE = {"language": UNDETERMINED, "confidence": 0.0}
TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("translation", "translation", "text", "text", _pair, _translation, languages="pair"),
        Task("transliteration", "transliteration", "text", "text", _pair, _transliteration, languages="pair"),
        Task(
            "asr",
            "speech_to_text",
            "audio",
            "text",
            _recognition,
            _transcript,
            others=frozenset({"spoken-command", "voice-activity"}),
        ),
        Task("tts", "text_to_speech", "text", "audio", _speech, _sound, silence=_NO_SOUND),
        Task("ocr", "ocr", "image", "text", _one, _reading),
        Task("ner", "nlp", "text", "nothing", _one, _entities, "named-entities", silence={"entities": []}),
        Task(
            "txt-lang-detection",
            "nlp",
            "text",
            "nothing",
            _none,
            _detection,
            "detect-language",
            languages="none",
            silence=_NO_LANGUAGE,
        ),
        Task("vad", "", "audio", "nothing", _none, _voices, "voice-activity", languages="none"),
    )
}
PIPELINE_TASKS = tuple(name for name in TASKS if name != "vad")
"""Those that can stand in a pipeline."""
