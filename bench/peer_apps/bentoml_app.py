"""Both models in BentoML, each a batchable method of one service.

How long a batch waits can't be told it: it finds out from how long batches take. What can is how long a call may
take at most; five milliseconds would have it refuse most calls, so it is far away.
"""

import os
from typing import Any

import bentoml
from served import Polarity, Ten

BATCHING: dict[str, Any] = {"batchable": True, "max_batch_size": 32, "max_latency_ms": 10_000}


@bentoml.service(workers=1, traffic={"timeout": 30}, metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Models:
    def __init__(self) -> None:
        self.slow, self.polarity = Ten(), Polarity(os.environ["TEXT_MODEL"])

    @bentoml.api(route="/ten", **BATCHING)
    def ten(self, texts: list[str]) -> list[dict[str, Any]]:
        return self.slow.predict(texts)

    @bentoml.api(route="/text", **BATCHING)
    def text(self, texts: list[str]) -> list[dict[str, Any]]:
        return self.polarity.predict(texts)
