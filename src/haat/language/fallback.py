"""What a reader of one language can best do with when a text, a format or a service isn't there in it."""

from __future__ import annotations

from functools import lru_cache

from haat.language.tags import Tag, parse_tag

ENGLISH = Tag("en", "Latn")

# A neighbour in the same script that most readers also read: by schooling (Hindi as the first or second language
# of the north), or by the language's own second script. Everybody else goes straight to English. A choice of this
# project: CLDR, whose chains are for data, falls back to its root.
_NEIGHBOURS = {
    "brx-Deva": "hi-Deva",
    "doi-Deva": "hi-Deva",
    "kok-Deva": "mr-Deva",
    "ks-Arab": "ur-Arab",
    "ks-Deva": "hi-Deva",
    "mai-Deva": "hi-Deva",
    "mni-Mtei": "mni-Beng",
    "mr-Deva": "hi-Deva",
    "ne-Deva": "hi-Deva",
    "sa-Deva": "hi-Deva",
    "sd-Arab": "ur-Arab",
    "sd-Deva": "hi-Deva",
}


@lru_cache(maxsize=128)
def fallback_chain(tag: Tag) -> tuple[Tag, ...]:
    """Return the tag itself and what to try after it, English last: ``mai-Deva, hi-Deva, en-Latn``.

    The chain never leaves a reader's script except for English and between the two scripts of Manipuri. A romanised
    language goes to English at once, as CLDR's parent locale of ``hi-Latn`` does (``en-IN``).
    """
    chain = [tag]
    while (neighbour := _NEIGHBOURS.get(str(chain[-1]))) is not None:
        chain.append(parse_tag(neighbour))
    return tuple(chain) if ENGLISH in chain else (*chain, ENGLISH)
