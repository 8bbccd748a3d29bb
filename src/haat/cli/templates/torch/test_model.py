from pathlib import Path

from haat.models.trial import answer_sample


def test_a_short_text_is_short():
    [output] = answer_sample(Path(__file__).parent)
    assert output["label"] == "short"
