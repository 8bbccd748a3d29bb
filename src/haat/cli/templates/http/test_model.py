from pathlib import Path

from haat.models.manifest_file import read_manifest


def test_the_model_file_is_sound():
    assert read_manifest(Path(__file__).parent).settings["dialect"] == "openai"
