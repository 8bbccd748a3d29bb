"""What an address below ``/v2/models`` names."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from haat.gateway.doors.visit import path_behind
from haat.kernel.errors import NotFound

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.routes import Route

_PREFIX = b"/v2/models/"
_PLACE = re.compile(rb"(?P<model>.+?)(?:/versions/(?P<version>[^/]+))?(?:/(?P<what>ready|infer))?")
_LONGEST = 300


def place_of(gateway: Gateway, call: Call) -> tuple[str, Route, str]:
    """Return what an address below ``/v2/models`` names: a model, its route, and what is to be done with it."""
    target = call.target
    name, version, what = _known_names(target) if len(target) <= _LONGEST else _names_in(target)
    route = gateway.names.find(gateway, call, name)
    if version is not None:
        route = gateway.routes.find(f"{route.service.path}@{version}".encode("utf-8", "replace"))
    return name, route, what


def _names_in(target: bytes) -> tuple[str, str | None, str]:
    """Return the model, the version and the operation that a request target names."""
    match = _PLACE.fullmatch(path_behind(target, _PREFIX))
    if match is None:
        raise NotFound("A model's name must follow /v2/models/.")
    version = None if match["version"] is None else _plain(match["version"])
    return _plain(match["model"]), version, (match["what"] or b"").decode("ascii")


_known_names = lru_cache(1024)(_names_in)


def _plain(raw: bytes) -> str:
    return unquote_to_bytes(raw).decode("utf-8", "replace")
