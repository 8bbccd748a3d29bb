"""Which operation of the OpenAI-compatible door stands at which address."""

from __future__ import annotations

from haat.gateway.doors.openai.chat import ChatCompletions, Completions, Responses
from haat.gateway.doors.openai.elsewhere import OPERATIONS as ELSEWHERE
from haat.gateway.doors.openai.embeddings import Embeddings
from haat.gateway.doors.openai.models import Models, OneModel
from haat.gateway.doors.openai.moderations import Moderations
from haat.gateway.doors.openai.speech import Speech
from haat.gateway.doors.openai.transcriptions import Transcriptions

OPERATIONS = {
    **ELSEWHERE,
    (b"GET", b"/v1/models"): Models(),
    (b"GET", b"/v1/models/*"): OneModel(),
    (b"POST", b"/v1/chat/completions"): ChatCompletions(),
    (b"POST", b"/v1/completions"): Completions(),
    (b"POST", b"/v1/responses"): Responses(),
    (b"POST", b"/v1/embeddings"): Embeddings(),
    (b"POST", b"/v1/moderations"): Moderations(),
    (b"POST", b"/v1/audio/speech"): Speech(),
    (b"POST", b"/v1/audio/transcriptions"): Transcriptions(),
}
