"""What a gRPC status is in HTTP, and the sentence that says what happened."""

from __future__ import annotations

import re
from typing import Any

import grpc

STATUS = {
    grpc.StatusCode.CANCELLED: 502,  # by the server: when a caller leaves nobody is answered
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
"""HTTP statuses by gRPC's own; ``docs/open-inference.md`` lists them."""
_OUR_SIDE = re.compile(r"\b(ipv[46]|unix):|^Stream removed \(|^(Deadline Exceeded|Socket closed)$")
"""What gRPC itself says: of addresses, and of how a call ended here."""
_TOO_LARGE = re.compile(r"message larger than max", re.IGNORECASE)
_SENTENCES = {
    grpc.StatusCode.UNAVAILABLE: "The model's server can't be reached, or broke off.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "The model's server did not answer in time.",
}
MOST_CHARACTERS = 500


class Refused(Exception):
    """A request that isn't answered with what it asked for: the HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def refusal(error: Any) -> Refused:
    """Return what a failed call (`grpc.aio.AioRpcError`) is over HTTP.

    What the server says is told; what gRPC says on our own side is nobody's business.
    """
    code, said = error.code(), error.details() or ""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.search(said):
        if "CLIENT: Received" in said:
            return Refused(500, "The model's answer is larger than is taken here.")
        return Refused(413, "The request is larger than the model's server takes.")
    if not said or _OUR_SIDE.search(said):
        said = _SENTENCES.get(code, "The model's server gave no reason.")
    return Refused(STATUS.get(code, 500), said[:MOST_CHARACTERS])
