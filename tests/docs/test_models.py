"""docs/models.md: its example is a model that answers, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from haat.cli.models import TEMPLATES, models
from haat.models import bundle
from haat.models.manifest import Manifest
from haat.models.runtimes import BUILT_IN
from haat.models.runtimes.confinement import CHILDREN, FILES
from haat.models.trial import answer_sample

DOCUMENT = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


def _block(kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_example_answers_its_sample(tmp_path: Path) -> None:
    (tmp_path / "haat-model.yaml").write_text(_block("yaml manifest"))
    (tmp_path / "model.py").write_text(_block("python model"))
    assert answer_sample(tmp_path) == [{"words": 2}]


def test_every_field_of_the_file_is_described() -> None:
    rows = re.findall(
        r"^\| (`[^|]*) \|", DOCUMENT[DOCUMENT.index("## The model's file") :].partition("\n## ")[0] + DOCUMENT, re.M
    )
    described = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert {field.name for field in msgspec.structs.fields(Manifest)} <= described


def test_every_runtime_and_command_is_described() -> None:
    for name in BUILT_IN:
        assert f"| `{name}` |" in DOCUMENT
        assert (TEMPLATES / name / "haat-model.yaml").is_file()
    for name in models.commands:
        assert f"haat models {name}" in DOCUMENT


def test_the_bounds_are_those_of_the_code() -> None:
    for words in (
        f"{bundle.MOST_FILES:,} files",
        f"{bundle.MOST_RATIO} times",
        f"{FILES} open files",
        f"{CHILDREN} processes",
    ):
        assert words in DOCUMENT
    assert (bundle.MOST_BUNDLE_BYTES, bundle.MOST_BYTES) == (2**30, 2**32)
