"""Reports of bad phrases of the interface: anybody may make one, the operator closes it with a note."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from haat.content import report_store
from haat.content.markup import is_safe_link
from haat.content.model import LONGEST_NOTE, LONGEST_PHRASE, Report
from haat.identity.throttle import Throttle, network_of
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Database
from haat.kernel.clock import Clock
from haat.kernel.errors import Conflict, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.pages import Page, decode_id_cursor, page_of
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.language import Tag, normalise
from haat.language.messages import _


class Reports:
    """Takes reports, ten from one public address and one more every five minutes, a hundred an hour from all."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db, self._clock = db, clock
        self._of_address = Throttle(clock, burst=10, refill=timedelta(minutes=5))
        self._of_all = Throttle(clock, burst=100, refill=timedelta(seconds=36))

    async def make(
        self, actor: Actor | None, tag: Tag, *, page: str, phrase: str, better: str, client: str | None
    ) -> Report:
        """Keep a report; ``client`` is the network address that asks. Raise ValidationFailed, RateLimited."""
        phrase = check_name(normalise(phrase), "phrase", LONGEST_PHRASE)
        better = check_name(normalise(better), "better", LONGEST_PHRASE) if better.strip() else ""
        page = check_name(page, "page", 300)
        if not page.startswith("/") or not is_safe_link(page):  # the operator's desk links to it
            raise ValidationFailed(errors=[{"field": "page", "message": _("Give the page's path, such as /catalog.")}])
        if network := network_of(client):
            self._of_address.take(network)
        self._of_all.take("all")
        made = Report(
            new_id(), tag, page, phrase, better, actor.label if actor else None, self._clock.now(), None, None, ""
        )
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await report_store.add(connection, made)
        return made

    async def page(
        self, actor: Actor, *, closed: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[Report]:
        """Return reports that are open, or closed ones, the newest first."""
        actor.require(Permission.CONTENT_EDIT)
        before = decode_id_cursor(cursor)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            found = await report_store.find(connection, closed, before, limit + 1)
        return page_of(found, limit, lambda one: (one.id,))

    async def close(self, actor: Actor, identifier: UUID, note: str) -> Report:
        """Say what became of a report; raise NotFound, or Conflict for one that is closed."""
        actor.require(Permission.CONTENT_EDIT)
        note, now = check_name(note, "note", LONGEST_NOTE), self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            report = await report_store.one_for_change(connection, identifier)
            if report.closed_at is not None:
                raise Conflict(_("The report is closed already."))
            closed = await report_store.close(connection, identifier, now, actor.label, note)
            await events.append(
                connection,
                stream=f"content-report/{identifier}",
                type="content.report_closed",
                data={"note": note},
                actor=actor.label,
                org=None,
                at=now,
            )
        return closed
