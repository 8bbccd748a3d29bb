"""Calls of the protocol's methods on one server: each ends with an answer, or as `Refused`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc

from haat.bridge import open_inference_pb2 as pb
from haat.bridge.messages import read_part
from haat.bridge.status import Refused, refusal

_PREFIX = "/inference.GRPCInferenceService/"
_RESPONSES: dict[type[Any], tuple[str, type[Any]]] = {
    pb.ServerLiveRequest: ("ServerLive", pb.ServerLiveResponse),
    pb.ServerReadyRequest: ("ServerReady", pb.ServerReadyResponse),
    pb.ServerMetadataRequest: ("ServerMetadata", pb.ServerMetadataResponse),
    pb.ModelReadyRequest: ("ModelReady", pb.ModelReadyResponse),
    pb.ModelMetadataRequest: ("ModelMetadata", pb.ModelMetadataResponse),
    pb.ModelConfigRequest: ("ModelConfig", pb.ModelConfigResponse),
    pb.RepositoryIndexRequest: ("RepositoryIndex", pb.RepositoryIndexResponse),
    pb.ModelInferRequest: ("ModelInfer", pb.ModelInferResponse),
}
"""The method that takes a message, and what it answers."""
USAGE = "x-haat-usage"

Metadata = tuple[tuple[str, str], ...]


class Server:
    """One server, for one request to it: ``seconds`` is how long that may take."""

    def __init__(self, channel: Any, metadata: Metadata, seconds: float) -> None:
        self._channel, self._metadata, self._seconds = channel, metadata, seconds
        self.usage = ""
        """What the server reports of the request's use."""

    async def ask(self, request: Any) -> Any:
        """Return the answer to one message; raise Refused."""
        name, response = _RESPONSES[type(request)]
        method = self._channel.unary_unary(
            _PREFIX + name, request_serializer=_serialize, response_deserializer=response.FromString
        )
        try:
            call = method(request, timeout=self._seconds, metadata=self._metadata)
            answer = await call
            self._note(await call.initial_metadata())
            self._note(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error
        return answer

    async def stream(self, request: pb.ModelInferRequest) -> AsyncGenerator[pb.ModelInferResponse, None]:
        """Yield what is answered to one request, in any number of parts; raise Refused.

        What goes wrong within a stream has a sentence and no status: Triton would give one (``triton_grpc_error``), but
        then dies itself of a model that sends something after an error.
        """
        method = self._channel.stream_stream(
            _PREFIX + "ModelStreamInfer",
            request_serializer=_serialize,
            response_deserializer=read_part,
        )
        call = method(_once(request), timeout=self._seconds, metadata=self._metadata)
        try:
            self._note(await call.initial_metadata())
            async for part in call:
                if part.error_message:
                    raise Refused(500, part.error_message)
                yield part.infer_response
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from error
        finally:
            call.cancel()

    def _note(self, metadata: Any) -> None:
        for name, value in metadata or ():
            if name == USAGE and isinstance(value, str) and value.isascii() and value.isprintable():
                self.usage = value


def _serialize(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


async def _once(request: pb.ModelInferRequest) -> AsyncIterator[pb.ModelInferRequest]:
    yield request
