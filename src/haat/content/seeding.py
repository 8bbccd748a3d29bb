"""The help pages that come with the platform, laid on its shelf once.

A page's file is ``seeds/{language}/{key}.md``: a title as ``# …`` in the first line, and its body. Where nobody of the
operator's has written, a text that a new release brings is published as the next version; whatever a person has
touched, in that language, stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from importlib import resources

from haat.content import store
from haat.content.model import Page, Translation, check_tag, check_text
from haat.content.service import Content
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock
from haat.kernel.errors import NotFound
from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM
from haat.language import ENGLISH, Tag


def seeds() -> Iterator[tuple[str, Tag, str, str]]:
    """Yield key, language, title and body of every page that comes with the platform, English before the others."""
    folder = resources.files("haat.content").joinpath("seeds")
    tags = sorted((check_tag(one.name) for one in folder.iterdir() if one.is_dir()), key=lambda tag: tag != ENGLISH)
    for tag in tags:
        for file in sorted(folder.joinpath(tag.language).iterdir(), key=lambda one: one.name):
            title, _, body = file.read_text(encoding="utf-8").partition("\n")
            yield file.name.removesuffix(".md"), tag, *check_text(title.removeprefix("# "), body)


async def seed(db: Database, clock: Clock, content: Content) -> list[tuple[str, Tag]]:
    """Publish what comes with the platform and isn't there yet; return what was published."""
    laid = []
    for key, tag, title, body in seeds():
        async with db.transaction(PLATFORM_SCOPE) as connection:
            page = await _page(connection, content, key, clock.now())
            versions = await store.versions(connection, key, tag)
            origin = await store.published(connection, key, page.source) if tag != page.source else None
            if not _is_wanted(versions, title, body) or (tag != page.source and origin is None):
                continue  # it is there, somebody wrote their own, or the operator took the page away
            text = Translation(
                id=new_id(),
                key=key,
                tag=tag,
                version=versions[0].version + 1 if versions else 1,
                state="published",
                title=title,
                body=body,
                author=PLATFORM.label,
                reviewer=PLATFORM.label,
                source=origin.tag if origin else None,
                source_version=origin.version if origin else None,
                machine=False,
                revision=1,
                note="",
                changed_at=clock.now(),
                published_at=clock.now(),
            )
            await content.show(connection, PLATFORM, page, text)
        laid.append((key, tag))
    return laid


async def _page(connection: Connection, content: Content, key: str, now: datetime) -> Page:
    """Return a page, locked, and make it when there is none."""
    try:
        return await store.page(connection, key, for_change=True)
    except NotFound:
        page = Page(key, "help", ENGLISH, None, None, now)
        await content.add(connection, PLATFORM, page)
        return page


def _is_wanted(versions: Sequence[Translation], title: str, body: str) -> bool:
    if not versions:
        return True
    newest = versions[0]
    untouched = newest.state == "published" and all(one.author == PLATFORM.label for one in versions)
    return untouched and (newest.title, newest.body) != (title, body)
