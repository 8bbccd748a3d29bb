"""Akshara Text Lab: text services whose engines come with the platform."""

from haat.models.hosted import HostedService
from haat.plugins.spec import hookimpl
from haat.providers.akshara import detect, sentiment, similarity, summarise, transliterate


@hookimpl
def haat_services() -> list[HostedService]:
    return [module.service() for module in (transliterate, detect, sentiment, similarity, summarise)]
