"""The fonts of the page: Noto, one family a script, from a folder of the system's.

A fixed list in a fixed order, and nothing else the system may have: the same document is to be the same file.
"""

from __future__ import annotations

import atexit
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import typst

from haat.kernel.errors import FontMissing
from haat.language import SCRIPTS, Tag

FOLDER = Path("/usr/share/fonts/truetype/noto")
"""Where Debian's fonts-noto-core puts them (see `make fonts`)."""

FAMILIES = MappingProxyType(
    {
        "Arab": "Noto Naskh Arabic",
        "Beng": "Noto Sans Bengali",
        "Deva": "Noto Sans Devanagari",
        "Gujr": "Noto Sans Gujarati",
        "Guru": "Noto Sans Gurmukhi",
        "Knda": "Noto Sans Kannada",
        "Latn": "Noto Sans",
        "Mlym": "Noto Sans Malayalam",
        "Mtei": "Noto Sans Meetei Mayek",
        "Olck": "Noto Sans Ol Chiki",
        "Orya": "Noto Sans Oriya",
        "Taml": "Noto Sans Tamil",
        "Telu": "Noto Sans Telugu",
    }
)
NASTALIQ = "Noto Nastaliq Urdu"
"""What readers of Urdu are used to. Sindhi is printed in Naskh; Kashmiri too, as this font lacks some of its signs."""

SYMBOLS = ("Noto Sans Symbols", "Noto Sans Symbols2")
"""For names only: what no script's font has."""


_INVISIBLE = "\u200b\u200c\u200d\ufe0e\ufe0f"  # the shaper draws nothing for them, whether a font has them or not


@dataclass(frozen=True, slots=True)
class Faces:
    """The fonts of one folder: what the typesetter is given, its families as they are called, their characters."""

    fonts: typst.Fonts
    names: Mapping[str, str]
    characters: tuple[frozenset[int], ...]

    def families_for(self, tag: Tag) -> list[str]:
        """Return the families of a page in a language: its own first, those of names in other scripts after it."""
        own = NASTALIQ if str(tag) == "ur-Arab" else FAMILIES[tag.script]
        families = dict.fromkeys((own, *FAMILIES.values(), *SYMBOLS))
        return [self.names[_plain(family)] for family in families if _plain(family) in self.names]

    def show(self, grapheme: str) -> bool:
        """Tell whether one family has all of a grapheme: a mark can't stand on a letter of another font."""
        needed = {ord(letter) for letter in grapheme if letter not in _INVISIBLE}
        return any(needed <= characters for characters in self.characters)


@lru_cache(maxsize=4)
def faces_in(folder: Path) -> Faces:
    """Return the fonts of a folder; raise FontMissing unless it has the family of every script."""
    found = _files_of(folder)
    wanted = {family: _plain(family) for family in (*FAMILIES.values(), NASTALIQ)}
    if missing := sorted(family for family, plain in wanted.items() if (plain, "Regular") not in found):
        scripts = [SCRIPTS[code].name for code, family in FAMILIES.items() if family in missing]
        raise FontMissing(
            f"{folder} lacks {', '.join(missing)}{_for(scripts)}: the operator installs Debian's fonts-noto-core "
            "(`make fonts`), or names another folder of Noto fonts in `fonts_dir`."
        )
    names, chosen, characters = {}, [], []
    for plain in (*wanted.values(), *map(_plain, SYMBOLS)):
        if (plain, "Regular") in found:
            names[plain], regular = found[plain, "Regular"]
            chosen += [path for name in ("Regular", "Bold") if (path := found.get((plain, name), ("", None))[1])]
            characters.append(frozenset(_characters(regular.read_bytes())))
    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=[_linked(chosen)])
    return Faces(fonts, names, tuple(characters))


def _files_of(folder: Path) -> dict[tuple[str, str], tuple[str, Path]]:
    """Return the regular and the bold file of each family, with the family's name.

    A bold file that says it is regular, as Debian 12's of Nastaliq does, is neither: which of two regular ones is
    taken would depend on the order of the folder.
    """
    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=[folder])
    found = {}
    for info in fonts.fonts():
        style = {400: "Regular", 700: "Bold"}.get(info.weight, "")
        if info.path is not None and style and Path(info.path).stem.endswith(f"-{style}"):
            found[_plain(info.family), style] = (info.family, Path(info.path))
    return found


def _linked(files: list[Path]) -> Path:
    """Return a folder of links to these files alone, gone when the process ends: Typst takes whole folders."""
    folder = Path(tempfile.mkdtemp(prefix="haat-fonts-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for file in files:
        (folder / file.name).symlink_to(file.resolve())
    return folder


def _plain(family: str) -> str:
    """Return a family's name as releases agree on it: ``Noto Sans MeeteiMayek`` was written apart later."""
    return family.replace(" ", "").lower()


def _for(scripts: list[str]) -> str:
    return f" (for {', '.join(scripts)})" if scripts else ""


def _characters(font: bytes) -> Iterator[int]:
    """Yield the code points that a TrueType font has a glyph for (OpenType, `cmap`, formats 4 and 12)."""
    (tables,) = struct.unpack_from(">H", font, 4)
    places = {font[12 + 16 * n : 16 + 16 * n]: struct.unpack_from(">I", font, 20 + 16 * n)[0] for n in range(tables)}
    cmap = places[b"cmap"]
    (count,) = struct.unpack_from(">H", font, cmap + 2)
    for n in range(count):
        platform, _, offset = struct.unpack_from(">HHI", font, cmap + 4 + 8 * n)
        (kind,) = struct.unpack_from(">H", font, cmap + offset)
        if platform in (0, 3) and kind == 4:
            yield from _segments(font, cmap + offset)
        elif platform in (0, 3) and kind == 12:
            (groups,) = struct.unpack_from(">I", font, cmap + offset + 12)
            for group in range(groups):
                first, last, _ = struct.unpack_from(">III", font, cmap + offset + 16 + 12 * group)
                yield from range(first, last + 1)


def _segments(font: bytes, table: int) -> Iterator[int]:
    (double,) = struct.unpack_from(">H", font, table + 6)
    count = double // 2
    ends = struct.unpack_from(f">{count}H", font, table + 14)
    starts = struct.unpack_from(f">{count}H", font, table + 16 + double)
    for first, last in zip(starts, ends, strict=True):
        yield from range(first, min(last, 0xFFFE) + 1)
