"""Hindi and Urdu translated into each other by Apertium: enough to get the gist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import regex  # type: ignore[import-untyped]  # the package ships no types

from haat.kernel.errors import EngineFailed
from haat.language import normalise
from haat.models.hosted import HostedService, Item, Output, Units
from haat.providers.companies import VANI
from haat.providers.programs import INSTALL, missing_program, run_program

SECONDS = 15.0
_MODES = {("hi-Deva", "ur-Arab"): "hin-urd", ("ur-Arab", "hi-Deva"): "urd-hin"}
_PACKAGES = "apertium apertium-urd-hin"
_DATA = Path("/usr/share/apertium/modes")

# Apertium's stream format: these characters are escaped by a backslash when they are text.
_SPECIAL = regex.compile(r"[\\^$/\[\]{}<>@]")
_ESCAPED = regex.compile(r"\\(.)", regex.DOTALL)
_ALTERNATIVE = regex.compile(r"(?<!\\)/[\p{L}\p{M}]+")
_UNKNOWN = regex.compile(r"(?<!\\)\*([\p{L}\p{M}\p{N}]+)")
# Our marks for a caller's own asterisk and for NUL, which separates texts on the way.
_ASTERISK = "\ue000"


def translate(texts: Sequence[str], source: str, target: str) -> list[Output]:
    """Return ``{"text", "unknown"}`` a text; ``unknown`` lists the words that were left as they are."""
    spans = [_prepare(text) for text in texts]
    mode = _MODES[source, target]
    arguments = ["apertium", "-z", "-f", "none", mode]
    answer = run_program(arguments, "".join(f"{span}\0" for span in spans).encode(), seconds=SECONDS)
    parts = answer.decode("utf-8", "replace").split("\0")
    if len(parts) < len(spans):
        raise EngineFailed
    return [_finish(part) for part in parts[: len(spans)]]


def _prepare(text: str) -> str:
    text = normalise(text).replace("\0", " ").replace("*", _ASTERISK)
    return str(_SPECIAL.sub(lambda special: "\\" + special[0], text))


def _finish(part: str) -> Output:
    unknown = list(dict.fromkeys(word for word in _UNKNOWN.findall(part) if not word.isdigit()))
    text = _UNKNOWN.sub(r"\1", _ALTERNATIVE.sub("", part))
    return {"text": normalise(_ESCAPED.sub(r"\1", text).replace(_ASTERISK, "*")), "unknown": unknown}


def invoke(items: Sequence[Item], config: Mapping[str, Any]) -> tuple[list[Output], Units]:
    """Return one `translate` answer an item; units are the characters of the input."""
    outputs = translate([item.text for item in items], config["source"], config["target"])
    return outputs, {"characters": Decimal(sum(len(item.text) for item in items))}


def missing() -> str | None:
    sentence = missing_program("apertium", _PACKAGES)
    if sentence is None and not all((_DATA / f"{mode}.mode").is_file() for mode in _MODES.values()):
        return f"Apertium's Hindi and Urdu data is not installed: {INSTALL}, or `apt-get install {_PACKAGES}`."
    return sentence


def service() -> HostedService:
    return HostedService(
        company=VANI,
        slug="translate-hi-ur",
        name="Translate Hindi ↔ Urdu",
        summary="Translates short, everyday Hindi into Urdu and Urdu into Hindi, enough to get the gist.",
        description="Gisting: good for short, common sentences, not for print. Words the dictionary does not know stay "
        "as they are and are listed in `unknown`; of several possible words the first is taken.",
        category="translation",
        unit="characters",
        kind="text",
        language_pairs=tuple(f"{source}>{target}" for source, target in _MODES),
        sample={
            "input": [{"text": "आज मौसम बहुत अच्छा है।"}],
            "config": {"source": "hi-Deva", "target": "ur-Arab"},
        },
        unit_price=Decimal("0.0020"),
        free_units=500,
        max_inputs=50,
        max_characters=2_000,
        typical_latency_ms=80,
        timeout_seconds=SECONDS,
        runtime="command",
        license_note="Engine: Apertium with apertium-urd-hin (GPL-3), run as a separate program.",
        invoke=invoke,
        missing=missing,
    )
