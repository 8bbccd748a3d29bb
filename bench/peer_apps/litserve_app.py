"""Both models in LitServe: batches made by it, requests over its fast queue, as its guide for much traffic says."""

import os
from typing import Any

import litserve
from served import Polarity, Ten

BATCHING: dict[str, Any] = {"max_batch_size": 32, "batch_timeout": 0.005}


class TenApi(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.served = Ten()

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        return self.served.predict(texts)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


class TextApi(TenApi):
    def setup(self, device: str) -> None:
        self.served = Polarity(os.environ["TEXT_MODEL"])


if __name__ == "__main__":
    server = litserve.LitServer(
        [TenApi(api_path="/ten", **BATCHING), TextApi(api_path="/text", **BATCHING)],
        accelerator="cpu",
        workers_per_device=int(os.environ["WORKERS"]),
        fast_queue=True,
        timeout=30,
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=int(os.environ["WORKERS"]),
        log_level="warning",
        generate_client_file=False,
    )
