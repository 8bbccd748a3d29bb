"""Keeps the catalogs of the interface true to the code: src/haat/locales/{language}.po.

    python tools/messages.py [--check]

Every text that the code marks stands in every catalog, new ones untranslated, those that are gone taken out. A text
that changed a little keeps its translation, marked fuzzy: it isn't shown before somebody has looked at it. `--check`
changes nothing and fails when a catalog is out of date.

Marks: ``_("…")``, ``_n("one", "many", …)``, ``N_`` and ``NN_`` in Python; ``_("…")`` and ``{% trans %}`` in templates.
The titles and sentences of errors (`haat.kernel.errors`) count as marked.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

from babel import Locale
from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po
from babel.plural import to_gettext

from haat.kernel import errors
from haat.language.messages import INTERFACE
from haat.language.tags import LANGUAGES, Tag

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "haat"
LOCALES = SOURCE / "locales"
KEYWORDS = {"_": None, "N_": None, "gettext": None, "_n": (1, 2), "NN_": (1, 2), "ngettext": (1, 2)}
METHODS = [("portal/templates/**.html", "jinja2.ext:babel_extract"), ("**.py", "python")]
OPTIONS = {"portal/templates/**.html": {"trimmed": "true", "silent": "false"}}
HEAD = """\
# Haat in {language}.
# Written by: nobody yet
# Reviewed by a speaker: no
"""


def template() -> Catalog:
    """Return every text that the code marks, in English, with the files it stands in."""
    catalog = Catalog(charset="utf-8")
    for file, line, message, comments, context in extract_from_dir(SOURCE, METHODS, OPTIONS, KEYWORDS, ["note:"]):
        catalog.add(message, None, [(file, line)], auto_comments=comments, context=context)
    for error in _errors():
        for text in (error.title, error.default_detail):
            catalog.add(text, None, [("kernel/errors.py", 1)])
    return catalog


def _errors() -> Iterator[type[errors.HaatError]]:
    waiting = [errors.HaatError]
    while waiting:
        error = waiting.pop(0)
        if error.__module__ == errors.__name__:
            yield error
        waiting += error.__subclasses__()


def file_of(tag: Tag) -> Path:
    return LOCALES / f"{tag.language}.po"


def renewed(tag: Tag, texts: Catalog) -> str:
    """Return a language's catalog with exactly the code's texts, as its file should be."""
    file = file_of(tag)
    head = _head(tag)
    known = file.read_bytes() if file.exists() else (HEAD.format(language=tag.name) + head).encode()
    catalog = read_po(io.BytesIO(known), locale=None)
    catalog.update(texts, keep_user_comments=True, update_creation_date=False)
    catalog.obsolete.clear()
    written = io.BytesIO()
    write_po(written, catalog, width=0, omit_header=True, sort_by_file=True, include_lineno=False)
    return f"{catalog.header_comment.strip()}\n{head}\n{written.getvalue().decode().lstrip()}"


def _head(tag: Tag) -> str:
    fields = {
        "Language": tag,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Transfer-Encoding": "8bit",
        "Plural-Forms": to_gettext(Locale.parse(tag.language).plural_form),  # CLDR's, not gettext's own table
    }
    return 'msgid ""\nmsgstr ""\n' + "".join(f'"{name}: {value}\\n"\n' for name, value in fields.items())


def main() -> int:
    texts = template()
    stale = []
    for tag in INTERFACE:
        if tag == LANGUAGES["en"].tag:
            continue
        wanted, file = renewed(tag, texts), file_of(tag)
        if file.exists() and file.read_text(encoding="utf-8") == wanted:
            continue
        stale.append(file.name)
        if "--check" not in sys.argv:
            LOCALES.mkdir(exist_ok=True)
            file.write_text(wanted, encoding="utf-8")
    if "--check" in sys.argv and stale:
        print(f"out of date: {', '.join(stale)}; run python tools/messages.py")
        return 1
    print(f"{len(texts)} texts, {len(stale)} catalogs renewed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
