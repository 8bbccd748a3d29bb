"""A record of the journal on its way into the store."""

from __future__ import annotations

from haat.usage.event import UnreadableEvent, UsageEvent, decode


class Record:
    """An event, or the bytes that say it, and where in the journal it stood.

    ``unreadable`` says why there is only a payload. ``opened``: it is a stream's, of which no end is known yet.
    ``id`` is the event's id, 16 bytes, when that is known and a glance at the payload can do (`haat.usage.glance`).
    """

    __slots__ = ("_event", "id", "offset", "opened", "payload", "segment", "unreadable", "worker")

    def __init__(
        self,
        event: UsageEvent | None,
        worker: str,
        segment: int,
        offset: int,
        payload: bytes = b"",
        unreadable: str = "",
        id: bytes = b"",
        opened: bool = False,
    ) -> None:
        self._event, self.worker, self.segment, self.offset = event, worker, segment, offset
        self.payload, self.unreadable, self.id, self.opened = payload, unreadable, id, opened

    @property
    def event(self) -> UsageEvent | None:
        """The event, decoded when it is first asked for; None when the record is unreadable.

        Whoever asks may change it: from then on the event counts, and no longer the payload.
        """
        if self._event is None and not self.unreadable:
            try:
                self._event = decode(self.payload)
            except UnreadableEvent as error:
                self.unreadable = str(error)
            self.id = b""
        return self._event
