"""The same models as ours are written: classes whose `predict` takes inputs."""

import os
from collections.abc import Sequence
from typing import Any

from served import Polarity, Ten

from haat.models.runtimes.port import Input


class TenModel:
    def load(self) -> None:
        self.served: Any = Ten()

    def predict(self, inputs: Sequence[Input]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = self.served.predict([given.text for given in inputs])
        return answers


class TextModel(TenModel):
    def load(self) -> None:
        self.served = Polarity(os.environ["TEXT_MODEL"])


class SmallModel(TenModel):
    """Holds some memory, and answers at once."""

    def load(self) -> None:
        self.held = bytearray(os.urandom(1024)) * (8 * 1024)

    def predict(self, inputs: Sequence[Input]) -> list[dict[str, Any]]:
        return [{"label": "x", "pid": os.getpid()} for _ in inputs]
