"""Vani Speech and Translation: services whose engines are heavy or programs of their own."""

from haat.models.hosted import HostedService
from haat.plugins.spec import hookimpl
from haat.providers.vani import activity, command, dictation, read, speak, translate


@hookimpl
def haat_services() -> list[HostedService]:
    return [module.service() for module in (translate, speak, read, command, activity, dictation)]
