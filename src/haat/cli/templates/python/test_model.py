from pathlib import Path

from haat.models.trial import answer_sample


def test_the_sample_is_answered():
    assert answer_sample(Path(__file__).parent) == [{"words": 2, "telling": ["नमस्ते", "दुनिया"]}]
