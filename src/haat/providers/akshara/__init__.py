"""Akshara Text Lab: text services whose engines come with the platform."""

from haat.models.hosted import Hosted
from haat.plugins.spec import hookimpl
from haat.providers.akshara import (
    chat,
    detect,
    embed,
    entities,
    moderate,
    sentiment,
    similarity,
    summarise,
    transliterate,
)

_MODULES = (transliterate, detect, sentiment, similarity, summarise, entities, moderate, embed)


@hookimpl
def haat_services() -> list[Hosted]:
    return [*(module.service() for module in _MODULES), chat.service()]
