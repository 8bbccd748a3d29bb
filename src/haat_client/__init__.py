"""The Python client of a Haat market: `Haat`, and `AsyncHaat` for asyncio. It depends on httpx alone.

from haat_client import Haat

with Haat() as market:  # HAAT_BASE_URL, HAAT_API_KEY
    done = market.services.invoke("vani/translate-hi-ur", [{"text": "नमस्ते"}], {"source": "hi", "target": "ur"})
    print(done.output[0]["text"], done.units, done.charge)
"""

from haat_client.aio import AsyncHaat
from haat_client.blocking import Haat
from haat_client.content import audio, image
from haat_client.errors import (
    ApiError,
    ConnectionFailed,
    HaatError,
    IdempotencyConflict,
    NotConfigured,
    NotFound,
    NotSubscribed,
    Overloaded,
    PermissionDenied,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    Rejected,
    StreamBroken,
    TimedOut,
    Unauthenticated,
    UnreadableAnswer,
)
from haat_client.events import Event
from haat_client.results import Answer, Invocation, Items, Meta, PipelineRun, StageReport, Translation
from haat_client.retries import Retries

__all__ = [
    "Answer",
    "ApiError",
    "AsyncHaat",
    "ConnectionFailed",
    "Event",
    "Haat",
    "HaatError",
    "IdempotencyConflict",
    "Invocation",
    "Items",
    "Meta",
    "NotConfigured",
    "NotFound",
    "NotSubscribed",
    "Overloaded",
    "PermissionDenied",
    "PipelineRun",
    "ProviderError",
    "QuotaExhausted",
    "RateLimited",
    "Rejected",
    "Retries",
    "StageReport",
    "StreamBroken",
    "TimedOut",
    "Translation",
    "Unauthenticated",
    "UnreadableAnswer",
    "audio",
    "image",
]
