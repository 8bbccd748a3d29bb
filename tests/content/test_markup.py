"""The markup of bodies: what it renders, that nothing else comes through, and how it is taken apart."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from haat.content.markup import is_safe_link, pairs, pieces, plain, render, segments, with_pieces, with_segments
from haat.content.seeding import seeds

ALLOWED = {
    **dict.fromkeys(("h2", "h3", "h4", "p", "ul", "ol", "li", "em", "strong", "code", "br"), frozenset[str]()),
    "a": frozenset({"href"}),
    "pre": frozenset({"tabindex"}),
}
SPECIAL = st.sampled_from(
    ["<", ">", "&", '"', "'", "`", "*", "_", "[", "](", ")", "(", "!", "#", "- ", "1. ", "\n", "\n\n", "    ", "\t",
     "\\", "```", "~~~", "javascript:", "&#106;avascript:", "java\nscript:", "data:text/html,", "http://a.in",
     "//evil.in", "/\\evil.in", "<script>", "</p>", "<img src=x onerror=alert(1)>", "<a href='javascript:1'>",
     "{company}", "|", "---", "नमस्ते", "\u202e", "\u2067", "](<javascript:alert(1)>)", "[a]: javascript:1\n", "<http://a.in>",
     " \"onclick=1"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(SPECIAL, st.text(max_size=8)), max_size=25).map("".join)


class Judge(HTMLParser):
    """Collects every tag, attribute and address that is none of those allowed, and whether tags nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.faults: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ALLOWED:
            self.faults.append(f"<{tag}>")
            return
        for name, value in attrs:
            numbered = tag == "ol" and name == "start" and str(value).isdigit()
            if name not in ALLOWED[tag] and not numbered:
                self.faults.append(f"<{tag} {name}>")
            if name == "href" and urlsplit(str(value)).scheme not in ("", "http", "https"):
                self.faults.append(f"href {value}")
            if name == "href" and not urlsplit(str(value)).scheme and str(value).startswith(("//", "/\\")):
                self.faults.append(f"href {value}")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_comment(self, data: str) -> None:
        self.faults.append("comment")

    def handle_decl(self, decl: str) -> None:
        self.faults.append("declaration")

    def handle_pi(self, data: str) -> None:
        self.faults.append("instruction")


def faults_of(html: str) -> list[str]:
    judge = Judge()
    judge.feed(html)
    judge.close()
    return judge.faults + judge.open


@given(TEXTS)
@example("[a](javascript:alert(1))")
@example("[a](&#x6A;avascript:alert(1))")
@example("[a](java\tscript:alert(1))")
@example("![a](http://a.in/x.png)")
@example("[a]\n\n[a]: javascript:alert(1)")
@example("```html onload=1\n<script>\n```")
def test_whatever_is_written_becomes_allowed_tags_alone(text: str) -> None:
    assert faults_of(render(text)) == []


def test_each_kind_of_markup_is_rendered() -> None:
    body = "# Keys\n\nA *key* is **secret**: `haat_live_`.\nSee [the list](/account)."
    body += "\n\n- one\n- two\n\n3. three\n\n```\n<b>\n```"
    assert render(body) == (
        "<h2>Keys</h2>\n<p>A <em>key</em> is <strong>secret</strong>: <code>haat_live_</code>.\n"
        'See <a href="/account">the list</a>.</p>\n<ul>\n<li>one</li>\n<li>two</li>\n</ul>\n'
        '<ol start="3">\n<li>three</li>\n</ol>\n<pre tabindex="0"><code>&lt;b&gt;\n</code></pre>\n'
    )


def test_headings_stand_below_the_title_and_no_deeper_than_the_fourth() -> None:
    assert render("# a\n## b\n###### c") == "<h2>a</h2>\n<h3>b</h3>\n<h4>c</h4>\n"


@pytest.mark.parametrize(
    "address",
    ["https://a.in", "HTTP://a.in/x?y=1#z", "/help", "/help?q=a:b", "#keys", "keys", "a/b:c", "?q=javascript:"],
)
def test_links_of_the_web_and_of_this_portal_are_safe(address: str) -> None:
    assert is_safe_link(address)


@pytest.mark.parametrize(
    "address",
    ["", "javascript:alert(1)", "JavaScript:1", " javascript:1", "data:text/html,x", "mailto:a@b.in", "vbscript:x",
     "ftp://a", "//evil.in", "/\\evil.in", "\\\\evil.in", "http:evil", "https:///x", "http://", "java\nscript:1",
     "a b", "/a\u2028b"],
)  # fmt: skip
def test_every_other_link_is_not(address: str) -> None:
    assert not is_safe_link(address)


def test_a_link_that_may_not_be_stays_the_text_it_was() -> None:
    assert render("[go](javascript:alert(1))") == "<p>[go](javascript:alert(1))</p>\n"


def test_a_body_is_taken_apart_and_put_together_again() -> None:
    body = "# Keys\n\nOne.\nTwo.\n\n- first\n- second\n  goes on\n\n```\nnot this\n```\n\n1. last"
    assert [one.text for one in segments(body)] == ["Keys", "One. Two.", "first", "second goes on", "last"]
    translated = with_segments(body, ["K", "OT", "f", "s", "l"])
    assert translated == "# K\n\nOT\n\n- f\n- s\n\n```\nnot this\n```\n\n1. l"


@given(TEXTS)
def test_the_same_texts_put_back_say_the_same(text: str) -> None:
    texts = [one.text for one in segments(text)]
    assert len(segments(with_segments(text, texts))) <= len(texts)
    assert plain(text) is not None


def test_what_is_not_words_is_not_translated() -> None:
    sentence = "Open [your keys](/account) and copy `haat_live_` to **{portal}**, please."
    assert pieces(sentence) == ["Open", "your keys", "and copy", "to", ", please."]
    assert (
        with_pieces(sentence, str.upper) == "OPEN [YOUR KEYS](/account) AND COPY `haat_live_` TO **{portal}**, PLEASE."
    )


@given(st.text(max_size=80))
def test_a_sentence_that_nobody_translates_stays_as_it_is(sentence: str) -> None:
    assert with_pieces(sentence, lambda text: text) == sentence


def test_bodies_that_are_built_alike_are_paired_sentence_by_sentence() -> None:
    source, target = "# Keys\n\nOne. Two.\n\n- Three.", "# कुंजियाँ\n\nएक। दो।\n\n- तीन।"
    assert list(pairs(source, target)) == [("Keys", "कुंजियाँ"), ("One.", "एक।"), ("Two.", "दो।"), ("Three.", "तीन।")]
    assert list(pairs("One. Two.", "एक और दो।")) == [("One. Two.", "एक और दो।")]
    assert list(pairs("One.\n\nTwo.", "एक और दो।")) == []


def test_the_pages_that_come_with_the_platform_are_built_alike_in_every_language() -> None:
    known = {(key, tag.language): body for key, tag, _, body in seeds()}
    keys = {key for key, _ in known}
    assert len(keys) >= 4 and len(known) == 2 * len(keys)
    for key in keys:
        english, hindi = known[key, "en"], known[key, "hi"]
        assert len(segments(english)) == len(segments(hindi)), key
        assert len(list(pairs(english, hindi))) > len(segments(english)), key
        for body in (english, hindi):
            assert "](" not in plain(body) and faults_of(render(body)) == [], key
