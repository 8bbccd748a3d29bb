"""How a front door reads a request's body of JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from haat.kernel.errors import HaatError, MalformedJson, ValidationFailed

if TYPE_CHECKING:
    from haat.gateway.call import Call

_MISSING = re.compile(r".*field `([^`]*)`.*")


def wrong_field(field: str, message: str) -> HaatError:
    """Return the refusal of a request for one of its fields."""
    return ValidationFailed(errors=[{"field": field, "message": message}])


def read_body(
    decoder: msgspec.json.Decoder[Any], call: Call, wrong: Callable[[str, str], HaatError] = wrong_field
) -> Any:
    """Return the request's body as a struct; raise MalformedJson, or what ``wrong`` makes of a field and a sentence."""
    try:
        return decoder.decode(call.body[0] if len(call.body) == 1 else b"".join(call.body))
    except msgspec.ValidationError as error:
        sentence, _, place = str(error).partition(" - at `$")
        field = place.rstrip("`").lstrip(".") or _MISSING.sub(r"\1", sentence)
        raise wrong(field, sentence) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson from error
