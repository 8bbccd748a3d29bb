"""A form with a recording in it, from its first bytes to where it goes.

Providers who speak the protocol get it as it comes, once the model's name is known: for most clients in the first
parts. Where the recording comes first, it waits in a file until the name comes behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haat.gateway.call import BUFFERED_BODY
from haat.gateway.doors.multipart import Multipart, Part, boundary_of
from haat.gateway.doors.openai.protocol import wrong_field
from haat.gateway.doors.spool import Piece, Spool
from haat.kernel.errors import InvalidRequest

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway

MAX_FIELD = 64 * 1024


class Upload:
    """What has come of a form. The bytes are in ``call.body``, or in the spool."""

    def __init__(self, call: Call) -> None:
        boundary = boundary_of(call.lines)
        if not boundary:
            raise InvalidRequest("Send multipart/form-data with a boundary.", field="file")
        self.form = Multipart(boundary)
        self.spool: Spool | None = None
        self.waits = False
        """It is known where it goes, and that it must be here whole before."""
        self._followed = 0
        """Pieces of the body, as far as it is in memory, that the form has been fed with."""

    def follow(self, gateway: Gateway, call: Call) -> None:
        """Take in what has come since the last time; move a recording that comes before the model to a file."""
        for data in call.body[self._followed :]:
            self.form.feed(data)
        self._followed = len(call.body)
        unknown = self.form.part("model") is None and self.form.open is not None and self.form.open.name != "model"
        if self.spool is None and unknown and call.once is None and call.body_size > BUFFERED_BODY:
            self.spool = Spool(gateway.settings.data_dir)
        if self.spool is not None:
            for data in call.body:
                self.spool.write(data)
            call.body, self._followed = [], 0

    def field(self, call: Call, name: str) -> str | None:
        """Return a field's text, None when it isn't there; raise for one that can't be read."""
        part = self.form.part(name)
        if part is None:
            return None
        if part.end - part.start > MAX_FIELD:
            raise wrong_field(name, f"has at most {MAX_FIELD} bytes")
        try:
            return self.content(call, part).decode("utf-8")
        except UnicodeDecodeError as error:
            raise wrong_field(name, "must be text in UTF-8") from error

    def fields(self, call: Call, name: str) -> list[str]:
        """Return the texts of all fields of a name."""
        found = [part for part in self.form.parts if part.name == name and part.end - part.start <= MAX_FIELD]
        return [self.content(call, part).decode("utf-8", "replace") for part in found]

    def content(self, call: Call, part: Part) -> bytes:
        """Return what is in a part."""
        if self.spool is not None:
            return self.spool.read(part.start, part.end)
        if len(call.body) != 1:
            call.body = [b"".join(call.body)]
            self._followed = 1
        return call.body[0][part.start : part.end]

    def unspool(self, call: Call) -> None:
        """Take the form into memory, for who must see it whole."""
        if self.spool is not None:
            call.body = [self.spool.read(0, self.spool.size)]
            self.spool, self._followed = None, 1

    def pass_on(self, call: Call, model: str) -> None:
        """Make the form the body of the call as it came, with another name of the model if one is given."""
        part = self.form.part("model")
        assert part is not None
        name = model.encode()
        if self.spool is not None:
            pieces: list[Piece] = [(0, self.spool.size)]
            if model:
                pieces = [(0, part.start), name, (part.end, self.spool.size)]
            self.spool.become_body(call, pieces)
            return
        if not model:
            return
        body = b"".join(call.body)
        call.body = [body[: part.start] + name + body[part.end :]]
        if call.content_length >= 0:
            call.content_length += len(name) - (part.end - part.start)
