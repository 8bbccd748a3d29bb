import hashlib
import json
import subprocess
import sys
from math import fsum, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.cli.sentences import SENTENCES
from haat.models.hosted import Item
from haat.providers.akshara import embed


def nearness(first: str, second: str) -> float:
    return fsum(a * b for a, b in zip(embed.embed(first), embed.embed(second), strict=True))


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("the market is open", "the markets are open", "my brother sleeps late"),
        ("मेरा नाम राजेश है", "मेरा नाम राकेश है", "बाज़ार कल बंद रहेगा"),
        ("நாளை காலை சந்திப்போம்", "நாளை மாலை சந்திப்போம்", "கடை ஒன்பது மணிக்கு மூடப்படும்"),
        ("দোকান রাত নয়টায় বন্ধ হয়", "দোকান রাত নয়টায় খোলে", "আপনার নাম কী"),
        ("آج موسم بہت اچھا ہے", "کل موسم بہت اچھا تھا", "میرا بھائی لاہور میں رہتا ہے"),
        ("దుకాణం రాత్రి మూస్తారు", "దుకాణాలు రాత్రి మూస్తారు", "మీ పేరు ఏమిటి"),
    ],
)
def test_texts_that_are_written_alike_are_nearer(text: str, near: str, far: str) -> None:
    assert nearness(text, near) > nearness(text, far) + 0.2


@pytest.mark.parametrize(
    ("first", "second"), [("Market", "mARKET"), ("ज़रा", "\u095bरा"), ("a  b", "a b\n"), ("हिन्दी", "हिन्\u200dदी")]
)
def test_equal_texts_have_equal_vectors_however_they_are_coded(first: str, second: str) -> None:
    assert embed.embed(first) == embed.embed(second)


@given(st.text(min_size=1))
def test_a_vector_has_length_one(text: str) -> None:
    vector = embed.embed(text)
    assert len(vector) == embed.DIMENSIONS
    assert sqrt(fsum(number * number for number in vector)) == pytest.approx(1, abs=1e-6)


def test_vectors_are_those_of_every_other_machine() -> None:
    everything = [embed.embed(text) for texts in SENTENCES.values() for text in texts]
    digest = hashlib.sha256(json.dumps(everything).encode()).hexdigest()
    assert digest == "6b4afe49d63d4289909c5423fc2de73bd6ea993812460ca6e73b68e5678fa0a5"


def test_vectors_do_not_depend_on_the_process() -> None:
    script = "from haat.providers.akshara.embed import embed; import json; print(json.dumps(embed('नमस्ते दुनिया')))"
    for seed in ("1", "2"):
        command = [sys.executable, "-c", script]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed})
        assert json.loads(answer.stdout) == embed.embed("नमस्ते दुनिया")


def test_a_token_is_a_word() -> None:
    outputs, units = embed.invoke([Item(text="नमस्ते दुनिया"), Item(text="…")], {})
    assert (len(outputs), units) == (2, {"tokens": 3})
