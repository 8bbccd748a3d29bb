"""Writing: drafts, review, publishing, staleness, drafts by machine; who may, and what the database itself refuses."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql

from haat.content import store
from haat.infra.postgres import PLATFORM_SCOPE, PUBLIC, tenant
from haat.kernel.errors import (
    AlreadyExists,
    ConcurrentChange,
    Conflict,
    NotFound,
    PermissionDenied,
    UnsupportedLanguage,
    ValidationFailed,
)
from haat.language import ENGLISH

from .conftest import GREETING, HINDI, TAMIL, URDU, Writers, colleague

BODY = "# Keys\n\nMake a key. Keep it secret.\n\n- See [the list](/account)."
HINDI_BODY = "# कुंजियाँ\n\nकुंजी बनाएँ। उसे गुप्त रखें।\n\n- [सूची](/account) देखें।"


async def types(writers: Writers, key: str = "first-call") -> list[str]:
    return [one.type for one in await writers.market.events(f"content/{key}")]


# --- the way of a text ------------------------------------------------------------------------------


async def test_a_text_goes_from_draft_over_review_to_readers(writers: Writers) -> None:
    await writers.help()
    draft = await writers.content.save(writers.writer, "first-call", ENGLISH, "Your first call", BODY)
    assert (draft.state, draft.version, draft.revision, draft.author) == ("draft", 1, 1, writers.writer.label)
    with pytest.raises(NotFound):
        await writers.library.published("first-call", ENGLISH)
    with pytest.raises(Conflict):  # not before review
        await writers.content.publish(writers.reviewer, "first-call", ENGLISH)
    assert (await writers.content.ask_review(writers.writer, "first-call", ENGLISH)).state == "review"
    shown = await writers.content.publish(writers.reviewer, "first-call", ENGLISH)
    assert (shown.state, shown.reviewer) == ("published", writers.reviewer.label)
    page = await writers.library.published("first-call", ENGLISH)
    assert (page.title, page.body, page.tag, page.is_elsewhere) == ("Your first call", BODY, ENGLISH, False)
    assert await types(writers) == [
        "content.created",
        "content.drafted",
        "content.sent_to_review",
        "content.published",
    ]
    [*_, published] = await writers.market.events("content/first-call")
    assert published.actor == writers.reviewer.label and published.data == {"language": "en-Latn", "version": 1}


async def test_a_change_of_what_is_published_is_a_new_version_and_the_old_one_stays(writers: Writers) -> None:
    await writers.help()
    first = await writers.publish("first-call", ENGLISH, "Your first call", BODY)
    await writers.content.save(writers.writer, "first-call", ENGLISH, "Your first call", BODY + "\n\nMore.")
    assert (await writers.library.published("first-call", ENGLISH)).body == BODY  # until it is published
    await writers.content.ask_review(writers.writer, "first-call", ENGLISH)
    await writers.content.publish(writers.reviewer, "first-call", ENGLISH)
    assert (await writers.library.published("first-call", ENGLISH)).version == 2
    desk = await writers.content.desk(writers.writer, "first-call", ENGLISH)
    assert [(one.version, one.state) for one in desk.versions] == [(2, "published"), (1, "archived")]
    assert (desk.versions[1].title, desk.versions[1].body) == (first.title, first.body)


async def test_saving_twice_is_one_version_and_who_was_slower_is_told(writers: Writers) -> None:
    await writers.help()
    one = await writers.content.save(writers.writer, "first-call", ENGLISH, "A", "a", revision=0)
    two = await writers.content.save(writers.writer, "first-call", ENGLISH, "A", "b", revision=one.revision)
    assert (two.version, two.revision, two.id) == (1, 2, one.id)
    for stale in (0, 1):
        with pytest.raises(ConcurrentChange):
            await writers.content.save(writers.reviewer, "first-call", ENGLISH, "A", "c", revision=stale)
    await writers.content.ask_review(writers.writer, "first-call", ENGLISH)
    with pytest.raises(ConcurrentChange):  # what the reviewer read is not what is there
        await writers.content.publish(writers.reviewer, "first-call", ENGLISH, revision=1)


async def test_two_who_begin_at_once_write_one_draft(writers: Writers) -> None:
    await writers.help()
    saves = [writers.content.save(who, "first-call", ENGLISH, "A", "a", revision=0)
             for who in (writers.writer, writers.reviewer)]  # fmt: skip
    results = await asyncio.gather(*saves, return_exceptions=True)
    assert sorted(type(one).__name__ for one in results) == ["ConcurrentChange", "Translation"]


async def test_what_is_sent_back_is_a_draft_with_the_reason(writers: Writers) -> None:
    await writers.help()
    await writers.content.save(writers.writer, "first-call", ENGLISH, "A", "a")
    await writers.content.ask_review(writers.writer, "first-call", ENGLISH)
    back = await writers.content.send_back(writers.reviewer, "first-call", ENGLISH, "Too short")
    assert (back.state, back.note) == ("draft", "Too short")
    saved = await writers.content.save(writers.writer, "first-call", ENGLISH, "A", "a and b")
    assert saved.note == "Too short"  # beside the editor until it is in review again
    assert (await writers.content.ask_review(writers.writer, "first-call", ENGLISH)).note == ""
    with pytest.raises(ValidationFailed):
        await writers.content.send_back(writers.reviewer, "first-call", ENGLISH, " ")


async def test_who_edits_a_text_in_review_makes_it_a_draft_and_is_its_author(writers: Writers) -> None:
    await writers.help()
    await writers.content.save(writers.writer, "first-call", ENGLISH, "A", "a")
    await writers.content.ask_review(writers.writer, "first-call", ENGLISH)
    assert (await writers.content.save(writers.reviewer, "first-call", ENGLISH, "A", "b")).state == "draft"
    await writers.content.ask_review(writers.reviewer, "first-call", ENGLISH)
    with pytest.raises(Conflict, match="colleague"):
        await writers.content.publish(writers.reviewer, "first-call", ENGLISH)
    await writers.content.publish(writers.writer, "first-call", ENGLISH)


async def test_an_author_publishes_alone_only_while_alone(writers: Writers) -> None:
    alone = await writers.market.consumer(kind="operator", organisation="Alone")
    await writers.content.create(alone, "first-call", "help", ENGLISH)
    await writers.content.save(alone, "first-call", ENGLISH, "A", "a")
    await writers.content.ask_review(alone, "first-call", ENGLISH)
    await writers.content.publish(alone, "first-call", ENGLISH)
    other = await colleague(writers.market, alone)
    await writers.content.save(alone, "first-call", ENGLISH, "A", "b")
    await writers.content.ask_review(alone, "first-call", ENGLISH)
    with pytest.raises(Conflict, match="colleague"):
        await writers.content.publish(alone, "first-call", ENGLISH)
    await writers.content.publish(other, "first-call", ENGLISH)


async def test_what_is_archived_is_gone_for_readers_and_may_be_written_again(writers: Writers) -> None:
    await writers.help()
    await writers.publish("first-call", ENGLISH, "Your first call", BODY)
    await writers.content.archive(writers.writer, "first-call", ENGLISH, published=True)
    with pytest.raises(NotFound):
        await writers.library.published("first-call", ENGLISH)
    assert await writers.library.search(ENGLISH, "secret") == []
    with pytest.raises(NotFound):
        await writers.content.archive(writers.writer, "first-call", ENGLISH, published=True)
    again = await writers.content.save(writers.writer, "first-call", ENGLISH, "Again", "a")
    assert again.version == 2
    given_up = await writers.content.archive(writers.writer, "first-call", ENGLISH, published=False)
    assert (given_up.state, given_up.version) == ("archived", 2)


# --- translations -----------------------------------------------------------------------------------


async def test_a_translation_says_what_it_was_made_from_and_is_stale_when_that_moved_on(writers: Writers) -> None:
    await writers.help()
    with pytest.raises(Conflict, match="English"):
        await writers.content.save(writers.writer, "first-call", HINDI, "क", "ख")
    await writers.publish("first-call", ENGLISH, "Keys", BODY)
    hindi = await writers.publish("first-call", HINDI, "कुंजियाँ", HINDI_BODY)
    assert (hindi.source, hindi.source_version) == (ENGLISH, 1)
    assert not (await writers.content.desk(writers.writer, "first-call", HINDI)).stale
    begun = await writers.content.save(writers.writer, "first-call", TAMIL, "அ", "ஆ")
    await writers.publish("first-call", ENGLISH, "Keys", BODY + "\n\nMore.")
    _, standings = await writers.content.get(writers.writer, "first-call")
    assert {str(one.tag): one.stale for one in standings} == {"en-Latn": False, "hi-Deva": True, "ta-Taml": False}
    assert begun.source_version == 1
    # who read the first version while they translated says so; the draft of it is stale as soon as it is published
    await writers.content.save(writers.writer, "first-call", TAMIL, "அ", "ஆ", source_version=1)
    await writers.content.ask_review(writers.writer, "first-call", TAMIL)
    await writers.content.publish(writers.reviewer, "first-call", TAMIL)
    assert (await writers.content.desk(writers.writer, "first-call", TAMIL)).stale
    await writers.publish("first-call", HINDI, "कुंजियाँ", HINDI_BODY + "\n\nऔर।")
    assert not (await writers.content.desk(writers.writer, "first-call", HINDI)).stale


async def test_a_translation_may_be_made_from_another_language(writers: Writers) -> None:
    await writers.help()
    await writers.publish("first-call", ENGLISH, "Keys", BODY)
    await writers.publish("first-call", HINDI, "कुंजियाँ", HINDI_BODY)
    urdu = await writers.publish("first-call", URDU, "چابیاں", "چابی", source=HINDI)
    assert (urdu.source, urdu.source_version) == (HINDI, 1)
    for source, version in ((TAMIL, None), (HINDI, 7)):
        with pytest.raises(Conflict, match="Publish the text"):
            await writers.content.save(
                writers.writer, "first-call", URDU, "چ", "چ", source=source, source_version=version
            )
    with pytest.raises(ValidationFailed):
        await writers.content.save(writers.writer, "first-call", URDU, "چ", "چ", source=URDU)
    await writers.publish("first-call", HINDI, "कुंजियाँ", HINDI_BODY + "\n\nऔर।")
    assert (await writers.content.desk(writers.writer, "first-call", URDU)).stale


async def test_a_machine_makes_a_draft_that_keeps_links_and_code_and_nothing_is_published(writers: Writers) -> None:
    await writers.help()
    await writers.publish("first-call", ENGLISH, "Keys", BODY + "\n\n```\ncurl\n```\n\nSend `key` now.")
    draft = await writers.content.translate(writers.writer, "first-call", HINDI)
    assert (draft.state, draft.machine, draft.source_version, draft.title) == ("draft", True, 1, "KEYS")
    assert draft.body == (
        "# KEYS\n\nMAKE A KEY. KEEP IT SECRET.\n\n- SEE [THE LIST](/account).\n\n```\ncurl\n```\n\nSEND `key` NOW."
    )
    mended = await writers.content.save(writers.writer, "first-call", HINDI, "कुंजियाँ", HINDI_BODY)
    assert not mended.machine
    await writers.content.ask_review(writers.writer, "first-call", HINDI)
    with pytest.raises(Conflict, match="review"):
        await writers.content.translate(writers.writer, "first-call", HINDI)


async def test_sentences_that_are_known_are_not_asked_again(writers: Writers) -> None:
    await writers.help()
    await writers.publish("first-call", ENGLISH, "Keys", BODY)
    await writers.publish("first-call", HINDI, "कुंजियाँ", HINDI_BODY)
    await writers.help("second")
    await writers.publish("second", ENGLISH, "KEYS", "Make a key. Throw it away.")
    draft = await writers.content.translate(writers.writer, "second", HINDI)
    assert (draft.title, draft.body) == ("कुंजियाँ", "कुंजी बनाएँ। THROW IT AWAY.")
    assert writers.translator.asked == ["Throw it away."]


async def test_a_pair_that_nobody_translates_leaves_everything_as_it_was(writers: Writers) -> None:
    await writers.help()
    with pytest.raises(Conflict, match="publish"):
        await writers.content.translate(writers.writer, "first-call", HINDI)
    await writers.publish("first-call", ENGLISH, "Keys", BODY)
    with pytest.raises(UnsupportedLanguage, match="ta-Taml"):
        await writers.content.translate(writers.writer, "first-call", TAMIL)
    assert (await writers.content.desk(writers.writer, "first-call", TAMIL)).versions == []


# --- pages ------------------------------------------------------------------------------------------


async def test_a_key_is_taken_once_and_a_mail_has_to_be_one(writers: Writers) -> None:
    await writers.help()
    with pytest.raises(AlreadyExists, match="first-call"):
        await writers.help()
    with pytest.raises(ValidationFailed) as refused:
        await writers.content.create(writers.writer, "partner.promoted", "mail", ENGLISH)
    assert "greeting" in str(refused.value.extensions["errors"])
    with pytest.raises(ValidationFailed):
        await writers.help("third", shown_until=datetime(2027, 1, 1, tzinfo=UTC))
    with pytest.raises(NotFound):
        await writers.content.save(writers.writer, "nowhere", ENGLISH, "A", "a")


async def test_words_of_a_mail_without_its_placeholders_are_kept_but_not_reviewed(writers: Writers) -> None:
    await writers.content.create(writers.writer, GREETING.name, "mail", ENGLISH)
    await writers.content.save(writers.writer, GREETING.name, ENGLISH, "Hi", "{company}, {portal}, {bank}")
    with pytest.raises(ValidationFailed) as refused:
        await writers.content.ask_review(writers.writer, GREETING.name, ENGLISH)
    assert "{bank} is no placeholder" in str(refused.value.extensions["errors"])
    await writers.content.save(writers.writer, GREETING.name, ENGLISH, "Hi", "{company}, {portal}")
    await writers.content.ask_review(writers.writer, GREETING.name, ENGLISH)


# --- who may ----------------------------------------------------------------------------------------


async def test_only_the_operators_roles_write(writers: Writers) -> None:
    await writers.help()
    await writers.publish("first-call", ENGLISH, "Keys", BODY)
    desk = await writers.content.desk(writers.writer, "first-call", HINDI)
    assert desk.source is not None
    for other in (await writers.market.consumer(), await writers.market.provider()):
        content = writers.content
        asked = [
            content.pages(other),
            content.get(other, "first-call"),
            content.desk(other, "first-call", ENGLISH),
            content.create(other, "mine", "help", ENGLISH),
            content.set_window(other, "first-call", None, None),
            content.save(other, "first-call", ENGLISH, "A", "a"),
            content.ask_review(other, "first-call", ENGLISH),
            content.send_back(other, "first-call", ENGLISH, "no"),
            content.publish(other, "first-call", ENGLISH),
            content.archive(other, "first-call", ENGLISH, published=True),
            content.translate(other, "first-call", HINDI),
            content.suggestions(other, desk.source, HINDI),
            content.known(other, ENGLISH, HINDI, "Keys"),
            content.ask_services(other, desk.source, HINDI),
        ]
        for one in asked:
            with pytest.raises(PermissionDenied):
                await one
    assert writers.translator.asked == []


async def test_below_the_application_too_drafts_are_seen_and_written_by_the_platform_alone(writers: Writers) -> None:
    await writers.help()
    await writers.publish("first-call", ENGLISH, "Keys", BODY)
    await writers.content.save(writers.writer, "first-call", ENGLISH, "Keys", "A secret plan")
    org = (await writers.market.consumer()).org_id
    for scope in (PUBLIC, tenant(org)):
        async with writers.market.db.transaction(scope) as connection:
            assert [one.state for one in await store.versions(connection, "first-call", ENGLISH)] == ["published"]
            for statement in (
                "UPDATE content_translations SET title = 'x'",
                "UPDATE content_pages SET kind = 'page'",
                "DELETE FROM content_reports",
            ):
                assert (await connection.execute(statement)).rowcount == 0


async def test_the_database_refuses_to_change_what_was_published(writers: Writers) -> None:
    await writers.help()
    await writers.publish("first-call", ENGLISH, "Keys", BODY)
    await writers.publish("first-call", ENGLISH, "Keys", BODY + "\n\nMore.")
    for column, value in (("title", "x"), ("body", "x"), ("author", "x"), ("reviewer", "x"), ("published_at", None)):
        with pytest.raises(psycopg.errors.RaiseException, match="new version"):
            async with writers.market.db.transaction(PLATFORM_SCOPE) as connection:
                await connection.execute(
                    sql.SQL("UPDATE content_translations SET {} = %s WHERE version = 1").format(sql.Identifier(column)),
                    (value,),
                )
