"""Use cases of those who write: pages, drafts, review, publishing. Each change is an event of ``content/<key>``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from haat.content import memory, store
from haat.content.markup import pieces, segments, with_pieces, with_segments
from haat.content.memory import Memory, Suggestion
from haat.content.model import (
    Kind,
    Page,
    Standing,
    State,
    Translation,
    check_key,
    check_reviewer,
    check_text,
    check_transition,
    check_window,
)
from haat.content.reading import words_of
from haat.content.translator import Translated, Translator
from haat.identity.service import Identity
from haat.infra import events
from haat.infra.letters import MailTemplate
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock
from haat.kernel.errors import ConcurrentChange, Conflict, NotFound, ValidationFailed
from haat.kernel.ids import new_id
from haat.kernel.permissions import Actor, Permission
from haat.kernel.text import check_name
from haat.language import Tag, sentences
from haat.language.messages import _

_KINDS_READ = ("page", "announcement", "help")
"""What readers find; the words of mails are found by nobody."""


_MOVES = {"review": "content.sent_to_review", "draft": "content.sent_back", "archived": "content.archived"}


@dataclass(frozen=True, slots=True)
class Desk:
    """All that an editor sees of a page in one language."""

    page: Page
    tag: Tag
    source: Translation | None
    """The published text that it is translated from; None for the page's own language."""
    published: Translation | None
    working: Translation | None
    versions: Sequence[Translation]
    stale: bool


class Content:
    """What the operator writes. Readers get it by `haat.content.reading.Library`."""

    def __init__(
        self, db: Database, clock: Clock, identity: Identity, translator: Translator, mails: Sequence[MailTemplate]
    ) -> None:
        self._db, self._clock, self._identity, self._translator = db, clock, identity, translator
        self.memory = Memory(db)
        self.mails: Mapping[str, MailTemplate] = {mail.name: mail for mail in mails}

    # --- looking ------------------------------------------------------------------------------------

    async def pages(self, actor: Actor) -> list[tuple[Page, list[Standing]]]:
        """Return all pages, with how far each is in the languages that something was written in."""
        actor.require(Permission.CONTENT_EDIT)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            found, standings = await store.pages(connection), await store.standings(connection)
        return [(page, [one for one in standings if one.key == page.key]) for page in found]

    async def desk(self, actor: Actor, key: str, tag: Tag, source: Tag | None = None) -> Desk:
        """Return a page in one language beside what it is translated from; raise NotFound.

        That is ``source`` if named, else what the present version was made from, else the page's own language.
        """
        actor.require(Permission.CONTENT_EDIT)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            page = await store.page(connection, key)
            versions = await store.versions(connection, key, tag)
            working = next((one for one in versions if one.state in ("draft", "review")), None)
            published = next((one for one in versions if one.state == "published"), None)
            present = working or published
            origin = source or (present.source if present and present.source else page.source)
            beside = await store.published(connection, key, origin) if origin != tag else None
            standing = next((one for one in await store.standings(connection, key) if one.tag == tag), None)
        return Desk(page, tag, beside, published, working, versions, bool(standing and standing.stale))

    async def get(self, actor: Actor, key: str) -> tuple[Page, list[Standing]]:
        """Return a page and how far it is in each language; raise NotFound."""
        actor.require(Permission.CONTENT_EDIT)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            return await store.page(connection, key), await store.standings(connection, key)

    # --- writing ------------------------------------------------------------------------------------

    async def create(
        self,
        actor: Actor,
        key: str,
        kind: Kind,
        source: Tag,
        *,
        shown_from: datetime | None = None,
        shown_until: datetime | None = None,
    ) -> Page:
        """Make a page without a text yet; a mail's key is its name (``partner.approved``). Raise AlreadyExists."""
        actor.require(Permission.CONTENT_EDIT)
        key, now = check_key(key), self._clock.now()
        if kind == "mail" and key not in self.mails:
            message = _("No mail is called so. There are: %(mails)s.", mails=", ".join(sorted(self.mails)))
            raise ValidationFailed(errors=[{"field": "key", "message": message}])
        _check_window(kind, shown_from, shown_until)
        page = Page(key, kind, source, shown_from, shown_until, now)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            await self.add(connection, actor, page)
        return page

    async def add(self, connection: Connection, actor: Actor, page: Page) -> None:
        """Keep a new page within the caller's transaction; raise AlreadyExists."""
        await store.add_page(connection, page)
        data = {"kind": page.kind, "source": str(page.source)}
        await self._record(connection, actor, page.key, "content.created", data)

    async def set_window(
        self, actor: Actor, key: str, shown_from: datetime | None, shown_until: datetime | None
    ) -> Page:
        """Say from when until when an announcement is shown."""
        actor.require(Permission.CONTENT_EDIT)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            page = await store.page(connection, key, for_change=True)
            _check_window(page.kind, shown_from, shown_until)
            await store.set_window(connection, key, shown_from, shown_until)
            data = {"from": shown_from and shown_from.isoformat(), "until": shown_until and shown_until.isoformat()}
            await self._record(connection, actor, key, "content.window_set", data)
        return replace(page, shown_from=shown_from, shown_until=shown_until)

    async def save(
        self,
        actor: Actor,
        key: str,
        tag: Tag,
        title: str,
        body: str,
        *,
        source: Tag | None = None,
        source_version: int | None = None,
        revision: int | None = None,
        machine: bool = False,
    ) -> Translation:
        """Keep a draft: the one that is worked on, or the next version. What waits for review is a draft again.

        A text in another language than the page's own is translated from a published one: from ``source``, default
        the page's own language, at ``source_version``, default the present one. With ``revision`` (0 for a version not
        begun) raise ConcurrentChange when somebody else has saved since. Raise Conflict when there is nothing yet to
        translate from.
        """
        actor.require(Permission.CONTENT_EDIT)
        title, body = check_text(title, body)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            page = await store.page(connection, key, for_change=True)
            origin, origin_version = await self._origin(connection, page, tag, source, source_version)
            versions = await store.versions(connection, key, tag)
            present = next((one for one in versions if one.state in ("draft", "review")), None)
            if revision is not None and revision != (present.revision if present else 0):
                raise ConcurrentChange(_("Somebody else has saved this text meanwhile: reload it and decide again."))
            draft = Translation(
                id=present.id if present else new_id(),
                key=key,
                tag=tag,
                version=present.version if present else (versions[0].version if versions else 0) + 1,
                state="draft",
                title=title,
                body=body,
                author=actor.label,
                reviewer=None,
                source=origin,
                source_version=origin_version,
                machine=machine,
                revision=(present.revision if present else 0) + 1,
                note=present.note if present else "",
                changed_at=self._clock.now(),
                published_at=None,
            )
            await store.put(connection, draft)
            await self._record(connection, actor, key, "content.drafted", {**_which(draft), "machine": machine})
        return draft

    async def _origin(
        self, connection: Connection, page: Page, tag: Tag, source: Tag | None, version: int | None
    ) -> tuple[Tag | None, int | None]:
        """Return what a text is translated from, neither for one in the page's own language."""
        if tag == page.source:
            return None, None
        origin = source or page.source
        if origin == tag:
            raise ValidationFailed(errors=[{"field": "source", "message": _("Translate from another language.")}])
        if version is not None:
            made_from = await store.version(connection, page.key, origin, version)
            known = made_from is not None and made_from.published_at is not None
        else:
            made_from = await store.published(connection, page.key, origin)
            known = made_from is not None
        if made_from is None or not known:
            raise Conflict(
                _("Publish the text in %(name)s first: a translation is made from what is published.", name=origin.name)
            )
        return origin, made_from.version

    async def ask_review(self, actor: Actor, key: str, tag: Tag, *, revision: int | None = None) -> Translation:
        """Hand a draft to a reviewer. The words of a mail must have its placeholders; raise ValidationFailed."""
        return await self._move(actor, key, tag, "review", revision=revision)

    async def send_back(self, actor: Actor, key: str, tag: Tag, reason: str) -> Translation:
        """Make a text that waits for review a draft again, and say why."""
        return await self._move(actor, key, tag, "draft", note=check_name(reason, "reason", 1000))

    async def publish(self, actor: Actor, key: str, tag: Tag, *, revision: int | None = None) -> Translation:
        """Show a reviewed text to everybody, in place of the one before, which is archived.

        Raise Conflict for the text's own author, unless nobody else of the operator's may publish. What was
        translated is learned by the memory.
        """
        return await self._move(actor, key, tag, "published", revision=revision)

    async def archive(self, actor: Actor, key: str, tag: Tag, *, published: bool) -> Translation:
        """Take the published text away from readers, or give up the draft."""
        return await self._move(actor, key, tag, "archived", of_published=published)

    async def _move(
        self,
        actor: Actor,
        key: str,
        tag: Tag,
        wanted: State,
        *,
        note: str = "",
        revision: int | None = None,
        of_published: bool = False,
    ) -> Translation:
        actor.require(Permission.CONTENT_EDIT)
        others = await self._others(actor) if wanted == "published" else []
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            page = await store.page(connection, key, for_change=True)
            find = store.published if of_published else store.working
            present = await find(connection, key, tag)
            if present is None:
                raise NotFound(_("There is no such text of %(key)s in %(name)s.", key=key, name=tag.name))
            if revision is not None and revision != present.revision:
                raise ConcurrentChange(_("Somebody else has saved this text meanwhile: reload it and decide again."))
            check_transition(present.state, wanted)
            if wanted in ("review", "published") and page.kind == "mail":
                self.mails[key].check(present.title, present.body)
            now = self._clock.now()
            moved = replace(present, state=wanted, note=note, changed_at=now)
            if wanted == "published":
                check_reviewer(present.author, actor.label, others)
                moved = replace(moved, reviewer=actor.label, published_at=now)
                await self.show(connection, actor, page, moved)
                return moved
            await store.put(connection, moved)
            if of_published:
                await store.unindex(connection, key, tag)
            data = {**_which(moved), **({"reason": note} if note else {})}
            await self._record(connection, actor, key, _MOVES[wanted], data)
        return moved

    async def _others(self, actor: Actor) -> list[str]:
        """Return who else of the operator's may publish, as the event log names them."""
        operator = await self._identity.operator() if actor.org_id is None else None
        org = actor.org_id or (operator.id if operator else None)
        members = await self._identity.members(org) if org else []
        return [one.label for one in members if one.may(Permission.CONTENT_EDIT) and one.label != actor.label]

    async def show(self, connection: Connection, actor: Actor, page: Page, new: Translation) -> None:
        """Publish a version in place of the one before, index its words, learn its sentences.

        It happens in the caller's transaction, which has locked the page.
        """
        before = await store.published(connection, page.key, new.tag)
        if before is not None:
            await store.put(connection, replace(before, state="archived", changed_at=new.changed_at))
        await store.put(connection, new)
        if page.kind in _KINDS_READ:
            await store.index(connection, page.key, new.tag, words_of(new.title), words_of(new.body))
        if new.source is not None and new.source_version is not None:
            origin = await store.version(connection, page.key, new.source, new.source_version)
            assert origin is not None  # versions are never removed
            await memory.learn(
                connection,
                (origin.tag, origin.title, origin.body),
                (new.tag, new.title, new.body),
                page.key,
                new.version,
                new.changed_at,
            )
        await self._record(connection, actor, page.key, "content.published", _which(new))

    # --- translating --------------------------------------------------------------------------------

    async def translate(self, actor: Actor, key: str, tag: Tag, source: Tag | None = None) -> Translation:
        """Make a draft from the published text by the memory and the market's services; raise as `Translator` does.

        A draft that is there already is replaced. What waits for review is left alone: raise Conflict.
        """
        actor.require(Permission.CONTENT_EDIT)
        desk = await self.desk(actor, key, tag, source)
        if desk.source is None:
            raise Conflict(_("There is no published text to translate from: publish it in its own language first."))
        if desk.working is not None and desk.working.state == "review":
            raise Conflict(_("The text waits for review: send it back before you translate it anew."))
        title, body = await self._translated(actor, desk.source, tag)
        return await self.save(
            actor,
            key,
            tag,
            title,
            body,
            source=desk.source.tag,
            source_version=desk.source.version,
            revision=desk.working.revision if desk.working else 0,
            machine=True,
        )

    async def _translated(self, actor: Actor, source: Translation, target: Tag) -> tuple[str, str]:
        """Return title and body in another language, sentence by sentence; what isn't words stays as it is."""
        divided = [sentences(text) for text in texts_of(source)]
        known = await self.memory.exact(source.tag, target, [one for parts in divided for one in parts])
        asked = dict.fromkeys(part for parts in divided for one in parts if one not in known for part in pieces(one))
        made: dict[str, str] = {}
        if asked:
            answer = await self._translator.translate(actor, list(asked), source.tag, target)
            made = dict(zip(asked, answer.texts, strict=True))
        title, *said = [
            " ".join(known.get(one) or with_pieces(one, made.__getitem__) for one in parts) for parts in divided
        ]
        return title, with_segments(source.body, said)

    async def suggestions(self, actor: Actor, source: Translation, target: Tag) -> dict[str, list[Suggestion]]:
        """Return what the memory knows for each sentence of a text, in order; a sentence like no other is left out."""
        actor.require(Permission.CONTENT_EDIT)
        return await self.memory.suggest(source.tag, target, sentences_of(source))

    async def known(self, actor: Actor, source: Tag, target: Tag, sentence: str) -> list[Suggestion]:
        """Return what the memory knows for one sentence."""
        actor.require(Permission.CONTENT_EDIT)
        return (await self.memory.suggest(source, target, [sentence])).get(sentence, [])

    async def ask_services(self, actor: Actor, source: Translation, target: Tag) -> tuple[dict[str, str], Translated]:
        """Return how a service of the market translates each sentence of a text, for the editor to take or leave.

        Beside it stands the answer with who made it. Raise as `Translator` does.
        """
        actor.require(Permission.CONTENT_EDIT)
        wanted = sentences_of(source)
        asked = list(dict.fromkeys(part for one in wanted for part in pieces(one)))
        answer = await self._translator.translate(actor, asked, source.tag, target)
        made = dict(zip(asked, answer.texts, strict=True))
        return {one: with_pieces(one, made.__getitem__) for one in wanted if pieces(one)}, answer

    async def _record(self, connection: Connection, actor: Actor, key: str, type: str, data: Mapping[str, Any]) -> None:
        await events.append(
            connection,
            stream=f"content/{key}",
            type=type,
            data=data,
            actor=actor.label,
            org=None,
            at=self._clock.now(),
        )


def texts_of(text: Translation) -> list[str]:
    """Return the title and every segment of the body, in order."""
    return [text.title, *(segment.text for segment in segments(text.body))]


def sentences_of(text: Translation) -> list[str]:
    """Return every sentence of a text once, in order."""
    return list(dict.fromkeys(one for part in texts_of(text) for one in sentences(part)))


def _which(one: Translation) -> dict[str, Any]:
    origin = {"source": str(one.source), "source_version": one.source_version} if one.source else {}
    return {"language": str(one.tag), "version": one.version, **origin}


def _check_window(kind: Kind, shown_from: datetime | None, shown_until: datetime | None) -> None:
    if kind != "announcement" and (shown_from or shown_until):
        message = _("Only an announcement is shown for a time.")
        raise ValidationFailed(errors=[{"field": "shown_from", "message": message}])
    check_window(shown_from, shown_until)
