"""Languages as ULCA writes them: a code, with the script beside it where it is not the usual one."""

from __future__ import annotations

from haat.gateway.doors.names import tag_of
from haat.gateway.doors.ulca.shapes import Config

ENGLISH = "en-Latn"


def tags_of(config: Config) -> tuple[str, str]:
    """Return source and target of a task as listings write them, empty where none is named."""
    language = config.language
    if language is None:
        return "", ""
    return (
        _tag(language.source_language, language.source_script_code),
        _tag(language.target_language, language.target_script_code),
    )


def _tag(code: str | None, script: str | None) -> str:
    code = (code or "").strip()
    return tag_of(f"{code}-{script.strip()}" if code and script and script.strip() else code)


def readings(task: str, source: str, target: str) -> list[tuple[str, str]]:
    """Return what a pair of languages can mean, the likeliest first.

    Who transliterates from ``en`` to ``hi`` mostly means Hindi in Latin letters.
    """
    found = [(source, target)]
    if task == "transliteration" and source and target:
        if source == ENGLISH:
            found.append((f"{target.partition('-')[0]}-Latn", target))
        elif target == ENGLISH:
            found.append((source, f"{source.partition('-')[0]}-Latn"))
    return found
