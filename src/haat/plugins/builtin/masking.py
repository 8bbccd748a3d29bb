"""Takes personal data out of requests and answers: what is found is replaced by its kind, as ``[EMAIL]``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from haat.plugins.builtin import personal
from haat.plugins.builtin.guard import Guard, GuardConfiguration

Kind = Literal["email", "upi", "phone", "aadhaar", "pan", "gstin", "card", "ifsc", "account", "passport"]


class MaskingConfiguration(GuardConfiguration):
    """Whose calls are masked, and what is looked for."""

    kinds: tuple[Kind, ...] = personal.KINDS  # type: ignore[assignment]  # the same words


class Masking(Guard):
    """Masks before other guards and caches look, so that nothing personal is kept or passed on."""

    summary = "Replace personal data in requests and answers by its kind, such as [EMAIL]"
    order = 350
    Configuration = MaskingConfiguration

    def __init__(self, configuration: MaskingConfiguration) -> None:
        super().__init__(configuration)
        self._kinds = frozenset(configuration.kinds)

    def find(self, text: str, key: str) -> Iterator[tuple[int, int, str]]:
        """Yield every finding with its kind."""
        for finding in personal.find(text, self._kinds, key):
            yield finding.start, finding.end, f"[{finding.kind.upper()}]"
