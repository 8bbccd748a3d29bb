"""What stands on an invoice around its data, in each language: one TOML file a language in ``labels``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from haat.language import Tag, fallback_chain


@dataclass(frozen=True, slots=True)
class Labels:
    """The words of one language; ``tag`` is the language they are in, which may be a neighbour of the one asked for."""

    tag: Tag
    paper: Mapping[str, str]
    money: Mapping[str, str]
    units: Mapping[str, str]
    mail: Mapping[str, str]
    numbers: tuple[str, ...] = ()
    """Number words from 0 to 99, where the language needs its own (see `words`)."""

    def __getitem__(self, name: str) -> str:
        return self.paper[name]

    def unit(self, unit: str) -> str:
        """Return a unit's name; one that no file knows is named as the meter names it."""
        return self.units.get(unit, unit.replace("_", " "))


@lru_cache(maxsize=64)
def labels_for(tag: Tag) -> Labels:
    """Return the labels of a language, or of the first in its `fallback_chain` that has some; English has."""
    return next(found for found in map(_read, fallback_chain(tag)) if found is not None)


def _read(tag: Tag) -> Labels | None:
    file = resources.files(__package__).joinpath("labels", f"{tag}.toml")
    if not file.is_file():
        return None
    read = tomllib.loads(file.read_text(encoding="utf-8"))
    parts = {name: read.pop(name) for name in ("money", "units", "mail")}
    numbers = tuple(read.pop("numbers", "").split())
    return Labels(tag, read, **parts, numbers=numbers)
