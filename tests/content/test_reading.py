"""Reading: the fallback chain, search in scripts, announcements in their time, mails, the memory's suggestions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from haat.content.reading import Library
from haat.kernel.errors import NotFound, ValidationFailed
from haat.language import ENGLISH, parse_tag
from haat.language import messages as catalogs

from .conftest import GREETING, HINDI, MAITHILI, TAMIL, URDU, Writers

ENGLISH_BODY = "Make a key. Keep it secret.\n\nSee [the list](/account)."
HINDI_BODY = "कुंजी बनाएँ। उसे गुप्त रखें।\n\n[सूची](/account) देखें।"


@pytest.fixture
async def shelf(writers: Writers) -> Writers:
    await writers.help("keys")
    await writers.publish("keys", ENGLISH, "Keys", ENGLISH_BODY)
    await writers.publish("keys", HINDI, "कुंजियाँ", HINDI_BODY)
    return writers


# --- languages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "given"), [("hi", "hi-Deva"), ("mai", "hi-Deva"), ("ta", "en-Latn"), ("en", "en-Latn")]
)
async def test_a_reader_gets_the_nearest_language_and_is_told_which(shelf: Writers, asked: str, given: str) -> None:
    page = await shelf.library.published("keys", parse_tag(asked))
    assert (str(page.tag), page.asked, page.is_elsewhere) == (given, parse_tag(asked), parse_tag(asked) != page.tag)
    [listed] = await shelf.library.shelf(parse_tag(asked))
    assert (listed.tag, listed.title) == (page.tag, page.title)


async def test_a_page_in_none_of_the_readers_languages_comes_in_its_own(writers: Writers) -> None:
    await writers.help("local", source=HINDI)
    await writers.publish("local", HINDI, "यहाँ", "केवल हिन्दी में।")
    assert (await writers.library.published("local", TAMIL)).tag == HINDI
    assert await writers.library.languages("local") == [HINDI]


async def test_a_page_of_another_kind_is_not_there(shelf: Writers) -> None:
    with pytest.raises(NotFound):
        await shelf.library.published("keys", ENGLISH, ("page",))
    with pytest.raises(NotFound):
        await shelf.library.published("nothing", ENGLISH)


# --- search -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["गुप्त", "कुंजि", "कुंजी गुप्त", "गु\u200dप्त", " कुंजियाँ "])
async def test_words_are_found_in_their_script_from_their_beginning_on(shelf: Writers, asked: str) -> None:
    for tag in (HINDI, MAITHILI):
        [found] = await shelf.library.search(tag, asked)
        assert (found.page.key, found.page.tag) == ("keys", HINDI)


async def test_a_search_finds_what_its_reader_would_be_shown(shelf: Writers) -> None:
    assert await shelf.library.search(HINDI, "secret") == []
    [found] = await shelf.library.search(TAMIL, "SECRET key")
    assert (found.page.tag, found.excerpt) == (ENGLISH, "Make a key.")
    [other] = await shelf.library.search(ENGLISH, "list")
    assert other.excerpt == "See the list."
    assert len(await shelf.library.search(ENGLISH, "key:*' | 'x")) == 0
    assert len(await shelf.library.search(ENGLISH, "key:*' & (")) == 1  # signs around a word are no part of it


@pytest.mark.parametrize("asked", ["", " - ", "'", "\\", "'':*", "a & b | !c", "\u200d"])
async def test_no_query_is_taken_for_anything_but_words(shelf: Writers, asked: str) -> None:
    assert await shelf.library.search(ENGLISH, asked) == []


async def test_the_title_weighs_more_and_a_new_version_replaces_the_words_of_the_old_one(shelf: Writers) -> None:
    await shelf.help("secret")
    await shelf.publish("secret", ENGLISH, "Secret", "Nothing else.")
    assert [one.page.key for one in await shelf.library.search(ENGLISH, "secret")] == ["secret", "keys"]
    await shelf.publish("keys", ENGLISH, "Keys", "Make a key.")
    assert [one.page.key for one in await shelf.library.search(ENGLISH, "secret")] == ["secret"]


async def test_words_of_mails_are_found_by_nobody(writers: Writers) -> None:
    await writers.content.create(writers.writer, GREETING.name, "mail", ENGLISH)
    await writers.publish(GREETING.name, ENGLISH, "Hi {company}", "Marvellous {portal}")
    assert await writers.library.search(ENGLISH, "marvellous", ("mail", "help")) == []
    with pytest.raises(NotFound):
        await writers.library.published(GREETING.name, ENGLISH)


# --- announcements ----------------------------------------------------------------------------------


async def test_an_announcement_is_there_in_its_time_in_the_readers_language(writers: Writers) -> None:
    now = writers.market.clock.now()
    await writers.content.create(
        writers.writer, "holiday", "announcement", ENGLISH,
        shown_from=now + timedelta(hours=1), shown_until=now + timedelta(hours=2),
    )  # fmt: skip
    await writers.publish("holiday", ENGLISH, "Holiday", "Closed tomorrow.")
    await writers.publish("holiday", HINDI, "छुट्टी", "कल बंद।")
    assert await writers.library.announced() == []
    writers.market.clock.advance(seconds=3600)
    [one] = await writers.library.announced()
    texts = {str(tag): one.for_reader(tag) for tag in (HINDI, MAITHILI, TAMIL)}
    assert {tag: text and text.title for tag, text in texts.items()} == {
        "hi-Deva": "छुट्टी", "mai-Deva": "छुट्टी", "ta-Taml": "Holiday",
    }  # fmt: skip
    writers.market.clock.advance(seconds=3600)
    assert await writers.library.announced() == []
    await writers.content.set_window(writers.writer, "holiday", None, None)
    assert len(await writers.library.announced()) == 1
    with pytest.raises(ValidationFailed):
        await writers.content.set_window(writers.writer, "holiday", now, now)


# --- mails ------------------------------------------------------------------------------------------


async def greeting(library: Library, language: str) -> tuple[str, str]:
    letter = await library.letter(GREETING, parse_tag(language), company="Vani", portal="http://a", reason="")
    return letter.subject, letter.text


async def test_a_mail_says_what_the_operator_published_else_what_it_always_said(
    writers: Writers, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ("Hello, Vani", "Vani is here: http://a\n")
    assert await greeting(writers.library, "hi") == usual
    await writers.content.create(writers.writer, GREETING.name, "mail", ENGLISH)
    await writers.publish(GREETING.name, ENGLISH, "Welcome {company}", "{company}: {portal}")
    assert await greeting(writers.library, "ta") == ("Welcome Vani", "Vani: http://a\n")
    await writers.publish(GREETING.name, HINDI, "स्वागत {company}", "{company}: {portal}")
    assert await greeting(writers.library, "mai") == ("स्वागत Vani", "Vani: http://a\n")

    class Catalog(catalogs.NullTranslations):
        def gettext(self, message: str) -> str:
            return {GREETING.subject: "வணக்கம் {company}", GREETING.text: "{company} {portal}"}[message]

    monkeypatch.setattr("haat.infra.letters.translations", lambda tag: Catalog())
    assert await greeting(writers.library, "ta") == ("வணக்கம் Vani", "Vani http://a\n")  # before the operator's English
    assert (await greeting(writers.library, "mai"))[0] == "स्वागत Vani"
    assert (await greeting(writers.library, "en"))[0] == "Welcome Vani"


async def test_a_mail_in_a_language_that_the_reader_may_not_have_is_not_sent(writers: Writers) -> None:
    await writers.content.create(writers.writer, GREETING.name, "mail", HINDI)
    await writers.publish(GREETING.name, HINDI, "स्वागत {company}", "{company}: {portal}")
    assert (await greeting(writers.library, "ta"))[0] == "Hello, Vani"
    assert (await greeting(writers.library, "hi"))[0] == "स्वागत Vani"


# --- the memory -------------------------------------------------------------------------------------


async def test_the_memory_suggests_what_was_published_with_how_alike_it_is(shelf: Writers) -> None:
    memory = shelf.content.memory
    exact = (await memory.suggest(ENGLISH, HINDI, ["keep it SECRET."]))["keep it SECRET."]
    assert (exact[0].target, exact[0].score, exact[0].key) == ("उसे गुप्त रखें।", 1.0, "keys")
    [near] = (await memory.suggest(ENGLISH, HINDI, ["Keep it very secret."]))["Keep it very secret."]
    assert near.source == "Keep it secret." and 0.5 <= near.score < 1
    assert await memory.suggest(ENGLISH, HINDI, ["Something else entirely", "?"]) == {}
    assert await memory.suggest(ENGLISH, URDU, ["Keep it secret."]) == {}


async def test_the_memory_knows_whole_sentences_and_keeps_the_newest(shelf: Writers) -> None:
    memory = shelf.content.memory
    assert await memory.exact(ENGLISH, HINDI, ["keys", "Make a key.", "Make a"]) == {
        "keys": "कुंजियाँ", "Make a key.": "कुंजी बनाएँ।",
    }  # fmt: skip
    await shelf.publish("keys", HINDI, "चाबियाँ", HINDI_BODY)
    assert await memory.exact(ENGLISH, HINDI, ["Keys"]) == {"Keys": "चाबियाँ"}


async def test_a_draft_teaches_nothing(writers: Writers) -> None:
    await writers.help("keys")
    await writers.publish("keys", ENGLISH, "Keys", ENGLISH_BODY)
    await writers.content.save(writers.writer, "keys", HINDI, "कुंजियाँ", HINDI_BODY)
    assert await writers.content.memory.exact(ENGLISH, HINDI, ["Keys"]) == {}
    await writers.content.ask_review(writers.writer, "keys", HINDI)
    await writers.content.publish(writers.reviewer, "keys", HINDI)
    assert await writers.content.memory.exact(ENGLISH, HINDI, ["Keys"]) == {"Keys": "कुंजियाँ"}
