"""One spelling for what is read as one: NFC, and the invisible characters that change nothing taken out.

The rules, each with its source, in the order in which a pass applies them:

1. NFC (UAX #15). Nukta letters come out the same way however they were typed: क़ ड़ ফ় as letter and nukta, because
   Unicode excludes them from composition, and ऩ ऱ ऴ as one character, because it doesn't.
2. A nukta stands right after its consonant, before the vowel sign (Unicode, 12.1: the order of the syllable); a
   second one shows nothing and goes. NFC leaves both, as vowel signs have combining class 0.
3. Byte order mark and word joiner, zero-width space and soft hyphen are advice to a line breaker (Unicode, 23.2 and
   23.8; UAX #14). All our languages divide words by spaces, so they go.
4. Embeddings and overrides go (UAX #9 advises isolates in their place; UTS #55: they make a text read as another).
   Isolates stay in pairs that hold something. Marks (LRM, RLM, ALM) go where nothing can change: beside a letter of
   their direction (W2, W7, N1), between two letters or at a letter's end of the text.
5. Zero-width joiner and non-joiner stay where they change the letters beside them:

   - after a virama (Unicode, 12.1 and 12.2; RFC 5892, A.1 and A.2): ZWNJ before a letter keeps the virama visible
     (ক্‌ত), ZWJ makes a half form (क्‍ष, र्‍य), at a word's end too, but not before a vowel sign;
   - ZWJ between a consonant and a virama with a consonant after it (Unicode, 12.2 and 12.8; PRI #37): র‍্য, ರ‍್ಕ;
   - ZWNJ between two letters that would join (Unicode, 9.2; RFC 5892, A.1): می‌خواهم;
   - ZWJ at one side of a joining letter that has nothing to join there (Unicode, 9.2 and 23.2): the initial form ه‍;
   - ZWJ between emoji (UTS #51): 👩‍🌾.

6. Everywhere else they go; of several in a row the first is judged.
7. Letters that were once written with a joiner become the character that Unicode has made for them: the chillus
   ൺ ൻ ർ ൽ ൾ ൿ (Unicode 5.1; 12.9) and the Bengali khanda ta ৎ (Unicode 4.1; 12.2).

NFC comes once more at the end of a pass, and passes are repeated until nothing changes, so that normalising twice is
normalising once.
"""

from __future__ import annotations

import unicodedata

import regex  # type: ignore[import-untyped]  # the package ships no types

_ZWNJ = "\u200c"
# Without one of these NFC is all there is to do; a nukta is rare enough to look twice.
_SPECIAL = regex.compile(
    r"[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
    r"|[\p{InSC=Vowel_Dependent}\p{InSC=Nukta}]\p{InSC=Nukta}"
)
_ADVICE = regex.compile(r"[\u00ad\u200b\u2060\ufeff\u202a-\u202e]+")
_SIGNS = regex.compile(r"[\p{InSC=Vowel_Dependent}\u093c\u09bc\u0a3c\u0abc\u0b3c\u0c3c\u0cbc]{2,}")
_NUKTA = regex.compile(r"\p{InSC=Nukta}")

_ISOLATES = regex.compile(r"[\u2066-\u2069]")
_INITIATORS = "\u2066\u2067\u2068"
_PDI = "\u2069"
_RLM = "\u200f"
_LETTERS = ("L", "R", "AL")  # the strong bidirectional classes
_MARKS = regex.compile(r"[\u200e\u200f\u061c]+")

_JOINERS = regex.compile(r"[\u200c\u200d]+")
_VIRAMA_BEFORE = regex.compile(r"\p{ccc=9}$")
_VOWEL_SIGN_AFTER = regex.compile(r"\p{InSC=Vowel_Dependent}")
_LETTER_AFTER = regex.compile(r"\p{L}")
_CONSONANT_BEFORE = regex.compile(r"\p{InSC=Consonant}\p{InSC=Nukta}?$")
_CONJOINED_AFTER = regex.compile(r"\p{ccc=9}\p{InSC=Consonant}")
_JOINS_ON = regex.compile(r"[\p{jt=D}\p{jt=L}]\p{jt=T}*$")
_JOINS_BACK = regex.compile(r"\p{jt=T}*[\p{jt=D}\p{jt=R}]")
_EMOJI_BEFORE = regex.compile(r"\p{Extended_Pictographic}[\p{Emoji_Modifier}\ufe0f]*$")
_EMOJI_AFTER = regex.compile(r"\p{Extended_Pictographic}")
_REACH = 16  # code points looked at on either side: more marks than any letter carries (UAX #15 allows 30 in streams)

_ATOMIC = {
    "\u0d23\u0d4d\u200d": "\u0d7a",  # ൺ
    "\u0d28\u0d4d\u200d": "\u0d7b",  # ൻ
    "\u0d30\u0d4d\u200d": "\u0d7c",  # ർ
    "\u0d32\u0d4d\u200d": "\u0d7d",  # ൽ
    "\u0d33\u0d4d\u200d": "\u0d7e",  # ൾ
    "\u0d15\u0d4d\u200d": "\u0d7f",  # ൿ
    "\u09a4\u09cd\u200d": "\u09ce",  # ৎ
}
_SEQUENCE = regex.compile("|".join(_ATOMIC))


def normalise(text: str) -> str:
    """Return the text in the one spelling that the rules of this module lead to; spaces and case are left alone."""
    text = unicodedata.normalize("NFC", text)
    while _SPECIAL.search(text):
        changed = _pass(text)
        if changed == text:
            break
        text = changed
    return text


def fold(text: str) -> str:
    """Return the text normalised and without case, to compare it by (Unicode, 3.13: canonical caseless matching)."""
    return normalise(unicodedata.normalize("NFD", normalise(text)).casefold())


def _pass(text: str) -> str:
    text = _SIGNS.sub(_nukta_first, text)
    text = _ADVICE.sub("", text)
    if _ISOLATES.search(text):
        text = _paired_isolates(text)
    text = _MARKS.sub(_telling_marks, text)
    text = _JOINERS.sub(_telling_joiner, text)
    text = _SEQUENCE.sub(lambda sequence: _ATOMIC[sequence[0]], text)
    return unicodedata.normalize("NFC", text)


def _nukta_first(signs: regex.Match[str]) -> str:
    """Return a run of vowel signs and nuktas with one nukta in front: the whole run at once, for long ones' sake."""
    run: str = signs[0]
    first = _NUKTA.search(run)
    return run if first is None else f"{first[0]}{_NUKTA.sub('', run)}"


def _paired_isolates(text: str) -> str:
    """Drop isolates that are not closed in their paragraph, PDIs that close nothing, and pairs around nothing."""
    kept: list[str] = []
    open_at: list[int] = []
    for character in text:
        if character in _INITIATORS:
            open_at.append(len(kept))
        elif character == _PDI:
            if not open_at:
                continue
            if open_at[-1] == len(kept) - 1:
                del kept[open_at.pop()]
                continue
            open_at.pop()
        elif open_at and unicodedata.bidirectional(character) == "B":
            for place in open_at:
                kept[place] = ""
            open_at.clear()
        kept.append(character)
    for place in open_at:
        kept[place] = ""
    return "".join(kept)


def _telling_marks(run: regex.Match[str]) -> str:
    """Return what is left of a run of direction marks: the first and the last, where they can change an order."""
    before = _kind_before(run.string, run.start())
    after = unicodedata.bidirectional(run.string[run.end()]) if run.end() < len(run.string) else "B"
    if before in _LETTERS and after in (*_LETTERS, "B"):
        return ""
    kept = list(dict.fromkeys((run[0][0], run[0][-1])))
    if kept and unicodedata.bidirectional(kept[0]) == before:
        kept.pop(0)
    # Before an Arabic letter RLM and ALM are alike; after one RLM changes how digits are ordered (W2).
    if kept and (unicodedata.bidirectional(kept[-1]) == after or (after == "AL" and kept[-1] == _RLM)):
        kept.pop()
    return "".join(kept)


def _kind_before(text: str, end: int) -> str:
    """Return the bidirectional class of the character before a place, of its letter if it is a mark; else ``B``."""
    for place in range(end - 1, max(-1, end - 1 - _REACH), -1):
        if (kind := unicodedata.bidirectional(text[place])) != "NSM":
            return kind
    return "B"


def _telling_joiner(run: regex.Match[str]) -> str:
    text: str = run.string
    joiner: str = run[0][0]
    before, after = text[max(0, run.start() - _REACH) : run.start()], text[run.end() : run.end() + _REACH]
    keeps = _non_joiner_tells if joiner == _ZWNJ else _joiner_tells
    return joiner if keeps(before, after) else ""


def _non_joiner_tells(before: str, after: str) -> bool:
    if _VIRAMA_BEFORE.search(before):
        return bool(_LETTER_AFTER.match(after))
    return bool(_JOINS_ON.search(before) and _JOINS_BACK.match(after))


def _joiner_tells(before: str, after: str) -> bool:
    if _VIRAMA_BEFORE.search(before):
        return not _VOWEL_SIGN_AFTER.match(after)
    if _CONSONANT_BEFORE.search(before) and _CONJOINED_AFTER.match(after):
        return True
    if _EMOJI_BEFORE.search(before) and _EMOJI_AFTER.match(after):
        return True
    return bool(_JOINS_ON.search(before)) != bool(_JOINS_BACK.match(after))
