"""haat-model.yaml is read as it is written, and what is wrong with it is told with field and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.errors import ValidationFailed
from haat.models.manifest import Manifest
from haat.models.manifest_file import parse_manifest, read_manifest
from models.runtimes.folders import folder_with, from_template

SOUND = """\
name: words
version: 1.10
runtime: python
entry: model:predict
languages: [no, hi-Deva]
network: true
memory_mb: 64
settings: {threshold: 0.5, deep: [1, {a: null}], yes: yes}
environment: {LEVEL: 3}
sample:
  input:
    - text: 12
listing:
  unit_price: 0.10
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_with(tmp_path, {"model.py": "def predict(inputs): ..."})


def refusal(text: str, folder: Path) -> list[dict[str, Any]]:
    with pytest.raises(ValidationFailed) as caught:
        parse_manifest(text, folder)
    errors: list[dict[str, Any]] = caught.value.extensions["errors"]
    assert all(error["message"] for error in errors)
    return errors


def test_texts_stay_as_they_were_written_and_settings_have_types(folder: Path) -> None:
    manifest = parse_manifest(SOUND, folder)
    assert (manifest.version, manifest.languages, manifest.listing.unit_price) == ("1.10", ("no", "hi-Deva"), "0.10")
    assert (manifest.network, manifest.memory_mb, manifest.environment) == (True, 64, {"LEVEL": "3"})
    assert manifest.settings == {"threshold": 0.5, "deep": [1, {"a": None}], "yes": True}
    assert manifest.sample == {"input": [{"text": 12}]}


@pytest.mark.parametrize("runtime", ["python", "onnx", "command", "http"])
def test_every_template_is_sound(tmp_path: Path, runtime: str) -> None:
    manifest = read_manifest(from_template(tmp_path, runtime))
    assert (manifest.name, manifest.runtime) == ("words", runtime)


@pytest.mark.parametrize(
    ("change", "field", "line"),
    [
        (("name: words", "name: Words!"), "name", 1),
        (("memory_mb: 64", "memory_mb: much"), "memory_mb", 7),
        (("memory_mb: 64", "memory_mb: .nan"), "memory_mb", 7),
        (("memory_mb: 64", "memory_mb: 1"), "memory_mb", 7),
        (("memory_mb: 64", "memory: 64"), "memory", 7),
        (("runtime: python", "runtime: perl"), "runtime", 3),
        (("[no, hi-Deva]", "[no, Hindi]"), "languages[1]", 5),
        (("entry: model:predict", "entry: nowhere_at_all:predict"), "entry", 4),
        (("entry: model:predict", "entry: ../model:predict"), "entry", 4),
        (("unit_price: 0.10", "unit_price: -1"), "listing.unit_price", 14),
        (("unit_price: 0.10", "unit_price: NaN"), "listing.unit_price", 14),
        (("{LEVEL: 3}", "{LD_PRELOAD: x}"), "environment.LD_PRELOAD", 9),
        (("{LEVEL: 3}", "{HAAT_MASTER_KEY: x}"), "environment.HAAT_MASTER_KEY", 9),
        (("network: true", "network: true\nnetwork: false"), "network", 7),
        (("network: true", "requirements: ['regex']"), "requirements[0]", 6),
        (("network: true", "requirements: ['--extra-index=x==1']"), "requirements[0]", 6),
        (("    - text: 12", "    - text: 2020-01-01"), "sample.input[0].text", 12),
        (("sample:", "samples:"), "samples", 10),
        (("network: true", "kind: audio"), "formats", 6),
    ],
)
def test_what_is_wrong_is_told_with_field_and_line(
    folder: Path, change: tuple[str, str], field: str, line: int
) -> None:
    text = SOUND.replace(*change)
    assert text != SOUND
    [error, *_] = refusal(text, folder)
    assert error["field"] == field
    if field != "formats":
        assert error["line"] == line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "a: [",
        "a: &x 1\nb: *x",
        "? [a]\n: b",
        "\x00",
        "a: !!python/object:os.system x",
        "{" * 500,
        "a: \ud800",
    ],
)
def test_what_is_no_manifest_is_refused(folder: Path, text: str) -> None:
    assert refusal(text, folder)


def test_a_folder_without_one_and_one_that_is_too_large_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed, match=r"there is no haat-model\.yaml"):
        read_manifest(tmp_path)
    (tmp_path / "haat-model.yaml").write_bytes(b"#" * 300_000)
    with pytest.raises(ValidationFailed, match="larger than"):
        read_manifest(tmp_path)


@given(st.text(max_size=200))
def test_any_text_is_a_manifest_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_manifest(text, Path("/nonexistent")), Manifest)
    except ValidationFailed as error:
        assert error.extensions["errors"]
