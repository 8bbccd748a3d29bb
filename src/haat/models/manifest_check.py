"""What a manifest must be beyond its types: the rules of the catalog, and those of its runtime."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path

from haat.kernel.text import is_readable
from haat.models.manifest import MOST_WORKERS, Manifest
from haat.models.runtimes import names, runtime_named

_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9]){0,39}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?")
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9._,-]+\])?==[A-Za-z0-9][A-Za-z0-9.!+_-]*"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_FORMAT = re.compile(r"[a-z0-9]{1,10}")
_THEIRS = re.compile(r"(HAAT|LD|PYTHON|PIP)_?.*|PATH|HOME|TMPDIR")
"""Variables that steer the worker itself."""
MOST_MEMORY_MB = 1024 * 1024
MOST_BYTES = 100 * 1024 * 1024


def problems(manifest: Manifest, folder: Path) -> list[str]:
    """Return what is wrong with a manifest, each as ``field: sentence``. ``folder`` has the model's files."""
    found = list(_problems(manifest))
    runtime = names().get(manifest.runtime)
    if runtime is None:
        found.append(f"runtime: must be one of {', '.join(sorted(names()))}")
    elif not found:
        found += runtime_named(manifest.runtime).check(manifest, folder)
    return found


def _problems(manifest: Manifest) -> Iterator[str]:
    if not _SLUG.fullmatch(manifest.name):
        yield "name: must be up to 40 small letters and digits, with single hyphens between them"
    if not _VERSION.fullmatch(manifest.version):
        yield "version: must be up to 32 letters, digits, dots, hyphens and underscores"
    if not manifest.entry or len(manifest.entry) > 1000 or not manifest.entry.isprintable():
        yield "entry: must be a line of 1 to 1,000 characters"
    yield from _languages(manifest)
    yield from _numbers(manifest)
    for index, requirement in enumerate(manifest.requirements):
        if not _REQUIREMENT.fullmatch(requirement):
            yield f"requirements[{index}]: must be a pinned distribution such as regex==2026.1.15"
    if len(manifest.requirements) > 200:
        yield "requirements: must be at most 200"
    for name, value in manifest.environment.items():
        if not _VARIABLE.fullmatch(name) or _THEIRS.fullmatch(name):
            yield f"environment.{name[:100]}: is not a variable that a model can be given"
        if "\0" in value or len(value) > 4096:
            yield f"environment.{name[:100]}: must be a text of up to 4,096 characters"
    yield from _sample(manifest)
    yield from _listing(manifest)


def _languages(manifest: Manifest) -> Iterator[str]:
    for index, language in enumerate(manifest.languages):
        if not _LANGUAGE.fullmatch(language):
            yield f"languages[{index}]: must be a language tag such as hi-Deva"
    for index, pair in enumerate(manifest.language_pairs):
        source, arrow, target = pair.partition(">")
        if not (arrow and _LANGUAGE.fullmatch(source) and _LANGUAGE.fullmatch(target)):
            yield f"language_pairs[{index}]: must be two language tags such as hi-Deva>ur-Arab"
    for name, given in (("languages", manifest.languages), ("language_pairs", manifest.language_pairs)):
        if len(set(given)) != len(given):
            yield f"{name}: names one twice"
    if manifest.languages and manifest.language_pairs:
        yield "languages: are found in language_pairs; leave one of the two out"
    for index, one in enumerate(manifest.formats):
        if not _FORMAT.fullmatch(one):
            yield f"formats[{index}]: must be the name of a format such as wav"
    if manifest.kind in ("audio", "image") and not (manifest.formats and manifest.max_bytes):
        yield f"formats: {manifest.kind} needs formats and max_bytes"


def _numbers(manifest: Manifest) -> Iterator[str]:
    bounds: tuple[tuple[str, float, float, float], ...] = (
        ("max_inputs", manifest.max_inputs, 1, 100),
        ("max_characters", manifest.max_characters, 1, 1_000_000),
        ("max_bytes", manifest.max_bytes, 0, MOST_BYTES),
        ("timeout_seconds", manifest.timeout_seconds, 0.01, 590),
        ("memory_mb", manifest.memory_mb, 16, MOST_MEMORY_MB),
        ("batching.max_items", manifest.batching.max_items, 1, 1024),
        ("batching.max_wait_ms", manifest.batching.max_wait_ms, 0, 10_000),
        ("batching.max_cost", manifest.batching.max_cost, 0, 1e9),
        ("workers.least", manifest.workers.least, 0, MOST_WORKERS),
        ("workers.most", manifest.workers.most, 1, MOST_WORKERS),
        ("listing.free_units", manifest.listing.free_units, 0, 10**15),
    )
    for field, value, least, most in bounds:
        if not least <= value <= most:  # NaN is in no range
            yield f"{field}: must be from {least:,g} to {most:,g}"
    if manifest.workers.least > manifest.workers.most:
        yield "workers.least: must not be more than workers.most"


def _sample(manifest: Manifest) -> Iterator[str]:
    inputs = manifest.sample.get("input")
    if not (isinstance(inputs, list) and inputs):
        yield "sample: must have a list `input` with an input that the model can answer"
    elif len(inputs) > manifest.max_inputs:
        yield "sample.input: has more inputs than max_inputs"


def _listing(manifest: Manifest) -> Iterator[str]:
    listing = manifest.listing
    for field, text, most in (
        ("name", listing.name, 80),
        ("summary", listing.summary, 160),
        ("description", listing.description, 6000),
        ("license_note", listing.license_note, 1000),
    ):
        if len(text) > most:
            yield f"listing.{field}: must be at most {most:,} characters"
    if listing.name and not is_readable(listing.name):
        yield "listing.name: must be visible characters on one line"
    try:
        price = Decimal(listing.unit_price)
        exponent = price.as_tuple().exponent
        sound = price.is_finite() and 0 <= price < 1_000_000 and isinstance(exponent, int) and exponent >= -12
    except InvalidOperation:
        sound = False
    if not sound:
        yield "listing.unit_price: must be rupees with up to 12 decimals such as 0.05"
