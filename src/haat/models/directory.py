"""Which model an address means: ``provider/name``, or ``provider/name@version``."""

from __future__ import annotations

import re
import time

from haat.models.engines.port import Engine, Model

FRESH_SECONDS = 0.5
_PARTS = re.compile(r"\d+|[a-z]+", re.IGNORECASE)


class Directory:
    """The models of an engine by address. It is at most half a second behind; who isn't found is looked for anew."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._models: dict[str, Model] = {}
        self._looked = float("-inf")

    def find(self, address: str) -> Model | None:
        """Return the model of an address; without a version that is the newest by its number."""
        if time.monotonic() - self._looked < FRESH_SECONDS and (model := self._models.get(address)) is not None:
            return model
        self._look()
        return self._models.get(address)

    def _look(self) -> None:
        self._models = {}
        newest: dict[str, tuple[tuple[int, str], ...]] = {}
        for model in self._engine.models():
            self._models[model.key] = model
            name, _, version = model.key.partition("@")
            order = precedence(version)
            if name not in newest or order > newest[name]:
                newest[name] = order
                self._models[name] = model
        self._looked = time.monotonic()


def precedence(version: str) -> tuple[tuple[int, str], ...]:
    """Return what versions are ordered by: numbers as numbers, and words before them (1.0.0-rc1 before 1.0.0)."""
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in _PARTS.findall(version.partition("+")[0])]
    return (*parts, (0, ""))
