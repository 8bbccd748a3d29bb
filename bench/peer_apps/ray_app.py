"""Both models in Ray Serve behind its proxy, each an application whose replicas make batches themselves."""

import asyncio
import os
import signal
from typing import Any

import ray
from ray import serve
from served import Polarity, Ten
from starlette.requests import Request

OPTIONS: dict[str, Any] = {
    "num_replicas": int(os.environ["WORKERS"]),
    "max_ongoing_requests": 256,
    "ray_actor_options": {"num_cpus": 0.2},
    "health_check_period_s": 1,
}


class Batched:
    """The model runs in a thread, so that the next batch comes together meanwhile."""

    served: Any

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.005)
    async def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.served.predict, texts)

    async def __call__(self, request: Request) -> Any:
        return await self.predict((await request.json())["text"])


@serve.deployment(**OPTIONS)
class TenModel(Batched):
    def __init__(self) -> None:
        self.served = Ten()


@serve.deployment(**OPTIONS)
class TextModel(Batched):
    def __init__(self, path: str) -> None:
        self.served = Polarity(path)


if __name__ == "__main__":
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    serve.run(TenModel.bind(), name="ten", route_prefix="/ten")
    serve.run(TextModel.bind(os.environ["TEXT_MODEL"]), name="text", route_prefix="/text")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    serve.shutdown()
    ray.shutdown()
