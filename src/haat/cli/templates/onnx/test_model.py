from pathlib import Path

from haat.models.trial import answer_sample


def test_praise_is_recognised():
    [output] = answer_sample(Path(__file__).parent)
    assert output["label"] == "good"
    assert output["score"] > 0.5
