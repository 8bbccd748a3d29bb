"""The languages of the market: the 22 of the Eighth Schedule and English, as BCP-47 tags with script.

Direction comes from the script, never from the language: Sindhi and Kashmiri are written both ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Direction = Literal["ltr", "rtl"]


@dataclass(frozen=True, slots=True)
class Script:
    """A script by its ISO 15924 code."""

    code: str
    name: str
    direction: Direction = "ltr"


@dataclass(frozen=True, slots=True)
class Language:
    """A language by its BCP-47 code; ``scripts`` are ISO 15924 codes, the usual one first."""

    code: str
    name: str
    own_name: str
    scripts: tuple[str, ...]

    @property
    def tag(self) -> Tag:
        """The language in its usual script."""
        return Tag(self.code, self.scripts[0])


@dataclass(frozen=True, slots=True, order=True)
class Tag:
    """A language in a script; ``str()`` gives the canonical ``hi-Deva``."""

    language: str
    script: str

    def __str__(self) -> str:
        return f"{self.language}-{self.script}"

    @property
    def direction(self) -> Direction:
        """``ltr`` or ``rtl``, for the ``dir`` attribute."""
        return SCRIPTS[self.script].direction

    @property
    def name(self) -> str:
        """English name; the script is named where it is not the usual one."""
        language = LANGUAGES[self.language]
        if self.script == language.scripts[0]:
            return language.name
        return f"{language.name} ({SCRIPTS[self.script].name})"

    @property
    def own_name(self) -> str:
        """The name as the language's readers write it in this script; in English where it is romanised."""
        language = LANGUAGES[self.language]
        if self.script == language.scripts[0]:
            return language.own_name
        return _OWN_NAMES.get((self.language, self.script), language.name)


SCRIPTS = MappingProxyType(
    {
        script.code: script
        for script in (
            Script("Arab", "Perso-Arabic", "rtl"),
            Script("Beng", "Bengali"),
            Script("Deva", "Devanagari"),
            Script("Gujr", "Gujarati"),
            Script("Guru", "Gurmukhi"),
            Script("Knda", "Kannada"),
            Script("Latn", "Latin"),
            Script("Mlym", "Malayalam"),
            Script("Mtei", "Meetei Mayek"),
            Script("Olck", "Ol Chiki"),
            Script("Orya", "Odia"),
            Script("Taml", "Tamil"),
            Script("Telu", "Telugu"),
        )
    }
)

LANGUAGES = MappingProxyType(
    {
        language.code: language
        for language in (
            Language("as", "Assamese", "অসমীয়া", ("Beng",)),
            Language("bn", "Bengali", "বাংলা", ("Beng",)),
            Language("brx", "Bodo", "बर'", ("Deva",)),
            Language("doi", "Dogri", "डोगरी", ("Deva",)),
            Language("en", "English", "English", ("Latn",)),
            Language("gu", "Gujarati", "ગુજરાતી", ("Gujr",)),
            Language("hi", "Hindi", "हिन्दी", ("Deva",)),
            Language("kn", "Kannada", "ಕನ್ನಡ", ("Knda",)),
            Language("kok", "Konkani", "कोंकणी", ("Deva",)),
            Language("ks", "Kashmiri", "کٲشُر", ("Arab", "Deva")),
            Language("mai", "Maithili", "मैथिली", ("Deva",)),
            Language("ml", "Malayalam", "മലയാളം", ("Mlym",)),
            Language("mni", "Manipuri", "ꯃꯩꯇꯩꯂꯣꯟ", ("Mtei", "Beng")),
            Language("mr", "Marathi", "मराठी", ("Deva",)),
            Language("ne", "Nepali", "नेपाली", ("Deva",)),
            Language("or", "Odia", "ଓଡ଼ିଆ", ("Orya",)),
            Language("pa", "Punjabi", "ਪੰਜਾਬੀ", ("Guru",)),
            Language("sa", "Sanskrit", "संस्कृतम्", ("Deva",)),
            Language("sat", "Santali", "ᱥᱟᱱᱛᱟᱲᱤ", ("Olck",)),
            Language("sd", "Sindhi", "سنڌي", ("Arab", "Deva")),
            Language("ta", "Tamil", "தமிழ்", ("Taml",)),
            Language("te", "Telugu", "తెలుగు", ("Telu",)),
            Language("ur", "Urdu", "اردو", ("Arab",)),
        )
    }
)

# Own names in a script that is not the language's usual one, by CLDR.
_OWN_NAMES = MappingProxyType({("ks", "Deva"): "कॉशुर", ("mni", "Beng"): "মৈতৈলোন্", ("sd", "Deva"): "सिन्धी"})


def parse_tag(text: str) -> Tag:
    """Return the tag of ``hi``, ``hi-Deva``, ``HI_deva``, ``hi-IN`` or ``hi-Latn`` (romanised).

    The script is filled in from the language, a region is accepted and dropped. Raises ValueError
    for a language outside the 23 and for a script the language isn't written in; every language may
    be written in Latin letters.
    """
    code, *subtags = text.strip().replace("_", "-").split("-")
    language = LANGUAGES.get(code.lower())
    if language is None:
        raise ValueError(f"{text!r} is not one of the {len(LANGUAGES)} languages")
    script = language.scripts[0]
    if subtags and len(subtags[0]) == 4 and subtags[0].isalpha():
        script = subtags.pop(0).title()
        if script not in (*language.scripts, "Latn"):
            raise ValueError(f"{language.name} is written in {' or '.join(language.scripts)}, not in {script}")
    if subtags and _is_region(subtags[0]):
        subtags.pop(0)
    if subtags:
        raise ValueError(f"{text!r} is not a language tag such as {language.tag}")
    return Tag(language.code, script)


def _is_region(subtag: str) -> bool:
    return (len(subtag) == 2 and subtag.isalpha()) or (len(subtag) == 3 and subtag.isdigit())
