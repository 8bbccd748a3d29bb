"""ULCA's asynchronous form: a request that asks for it becomes a job, and is told where its answer will be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from haat.gateway.doors.bodies import read_body
from haat.gateway.doors.handing import hand_on

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.doors.visit import Visit
    from haat.gateway.gateway import Gateway

_SIGNS = (b"isSyncApi", b"modelProcessingType")


class _Control(msgspec.Struct, rename="camel"):
    is_sync_api: bool = True


class _Processing(msgspec.Struct):
    type: str = ""


class _Asked(msgspec.Struct, rename="camel"):
    control_config: _Control | None = None
    model_processing_type: _Processing | None = None


_decoder = msgspec.json.Decoder(_Asked)


def is_for_later(call: Call) -> bool:
    """Tell whether ``controlConfig.isSyncApi`` is false, or ``modelProcessingType.type`` is ``batch``."""
    if not any(sign in part for part in call.body for sign in _SIGNS):
        return False
    asked: _Asked = read_body(_decoder, call)
    control, processing = asked.control_config, asked.model_processing_type
    return (control is not None and not control.is_sync_api) or (processing is not None and processing.type == "batch")


def take_for_later(gateway: Gateway, call: Call, visit: Visit) -> bool:
    """Hand a request on that asks for its answer later; return False for any other."""
    if not is_for_later(call):
        return False
    hand_on(gateway, call, visit)
    return True
