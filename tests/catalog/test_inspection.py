"""What is proposed for a model by its metadata, and what isn't."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from haat.catalog.inspection import Unclear, propose
from haat.catalog.tensors import TensorMapDraft, Trial
from haat.infra.inference.mapping import tensors_of


def tensor(name: str, datatype: str = "BYTES", *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape or (-1, 1))}


def metadata(inputs: list[Any], outputs: list[Any], name: str = "model") -> dict[str, Any]:
    return {"name": name, "versions": ["1"], "platform": "python", "inputs": inputs, "outputs": outputs}


TRANSLATION = [tensor("INPUT_TEXT"), tensor("INPUT_LANGUAGE_ID"), tensor("OUTPUT_LANGUAGE_ID")]


@pytest.mark.parametrize(
    ("document", "category", "unit", "inputs", "outputs"),
    [
        (
            metadata(TRANSLATION, [tensor("OUTPUT_TEXT")], "nmt"),
            "translation",
            "characters",
            {"source": "INPUT_LANGUAGE_ID", "target": "OUTPUT_LANGUAGE_ID", "text": "INPUT_TEXT"},
            {"text": "OUTPUT_TEXT"},
        ),
        (
            metadata(TRANSLATION, [tensor("OUTPUT_TEXT")], "indic-xlit"),
            "transliteration",
            "characters",
            {"source": "INPUT_LANGUAGE_ID", "target": "OUTPUT_LANGUAGE_ID", "text": "INPUT_TEXT"},
            {"text": "OUTPUT_TEXT"},
        ),
        (
            metadata([tensor("text"), tensor("src_lang"), tensor("tgt_lang")], [tensor("translation")]),
            "translation",
            "characters",
            {"source": "src_lang", "target": "tgt_lang", "text": "text"},
            {"text": "translation"},
        ),
        (
            metadata(
                [tensor("AUDIO_SIGNAL", "FP32", -1, -1), tensor("NUM_SAMPLES", "INT32"), tensor("LANG_ID")],
                [tensor("TRANSCRIPTS")],
            ),
            "speech_to_text",
            "audio_seconds",
            {"language": "LANG_ID", "audio": "AUDIO_SIGNAL", "samples": "NUM_SAMPLES"},
            {"text": "TRANSCRIPTS"},
        ),
        (
            metadata(
                [tensor("INPUT_TEXT"), tensor("INPUT_SPEAKER_ID"), tensor("INPUT_LANGUAGE_ID")],
                [tensor("OUTPUT_GENERATED_AUDIO", "FP32", -1, -1)],
            ),
            "text_to_speech",
            "characters",
            {"language": "INPUT_LANGUAGE_ID", "text": "INPUT_TEXT", "input_speaker_id": "INPUT_SPEAKER_ID"},
            {"audio": "OUTPUT_GENERATED_AUDIO"},
        ),
        (
            metadata([tensor("IMAGE", "BYTES", -1)], [tensor("OUTPUT_TEXT", "BYTES", -1)]),
            "ocr",
            "images",
            {"image": "IMAGE"},
            {"text": "OUTPUT_TEXT"},
        ),
        (
            metadata([tensor("sentences", "BYTES", -1)], [tensor("sentence_embedding", "FP32", -1, 384)]),
            "embedding",
            "characters",
            {"text": "sentences"},
            {"embedding": "sentence_embedding"},
        ),
        (
            metadata([tensor("TEXT")], [tensor("LABEL"), tensor("SCORE", "FP32")]),
            "nlp",
            "characters",
            {"text": "TEXT"},
            {"label": "LABEL", "score": "SCORE"},
        ),
        (
            metadata([tensor("TEXT_A"), tensor("TEXT_B")], [tensor("SCORE", "FP32")]),
            "nlp",
            "characters",
            {"text": "TEXT_A", "other": "TEXT_B"},
            {"score": "SCORE"},
        ),
    ],
    ids=["translation", "transliteration", "small", "asr", "tts", "ocr", "embedding", "sentiment", "pairs"],
)
def test_a_task_is_told_from_names_and_datatypes(
    document: dict[str, Any], category: str, unit: str, inputs: dict[str, str], outputs: dict[str, str]
) -> None:
    found = propose(document)
    assert (found.category, found.unit) == (category, unit)
    assert (found.tensors.inputs, found.tensors.outputs) == (inputs, outputs)
    assert found.tensors.rank == len(document["inputs"][0]["shape"])


@pytest.mark.parametrize(
    "document",
    [
        metadata(TRANSLATION, [tensor("OUTPUT_TEXT")], "nmt"),
        metadata([tensor("AUDIO", "BYTES", 1, 1), tensor("BEAM", "INT32"), tensor("HOT", "BOOL")], [tensor("TEXT")]),
        metadata([tensor("AUDIO", "FP32", -1, -1), tensor("NUM_SAMPLES", "INT32")], [tensor("TEXT")]),
        metadata([tensor("IMAGE", "BYTES", -1)], [tensor("TEXT")]),
    ],
    ids=["text", "sound", "waveform", "image"],
)
def test_a_proposal_can_be_listed_and_its_sample_asked(document: dict[str, Any]) -> None:
    found = propose(document)
    fields = {name: getattr(found.tensors, name) for name in found.tensors.__struct_fields__}
    assert TensorMapDraft.model_validate(fields).tensor_map() == found.tensors
    trial = Trial(found.tensors, found.sample)
    assert trial.path == f"/v2/models/{document['name']}/infer"
    assert trial.body


@pytest.mark.parametrize("category", ["translation", "speech_to_text", "text_to_speech", "ocr", "embedding", "nlp"])
def test_what_the_gateways_own_door_says_is_understood(category: str) -> None:
    tensors = tensors_of(category)
    found = propose(
        metadata(
            [tensor(name, "BYTES", -1) for name in tensors.inputs.values()],
            [tensor(name, tensors.datatype(name), -1, -1) for name in tensors.outputs.values()],
        )
    )
    assert found.category == category
    assert found.tensors.inputs == tensors.inputs
    assert list(found.tensors.outputs.values()) == list(tensors.outputs.values())


def test_what_nobody_can_tell_is_noted_and_one_item_is_one_item() -> None:
    document = metadata(
        [tensor("TEXT", "BYTES", 1, 1), tensor("Top-K", "INT32", 1, 1)], [tensor("TEXT"), tensor("9 LIVES", "INT64")]
    )
    found = propose(document)
    assert found.tensors.most_items == 1
    assert found.tensors.options == {"top_k": "Top-K"}
    assert found.tensors.outputs == {"text": "TEXT", "field_9_lives": "9 LIVES"}
    assert len(found.notes) == 2 and "Top-K" in found.notes[0]
    assert found.sample["config"] == {"top_k": 1}


def test_base64_is_what_a_server_says_it_takes() -> None:
    image = tensor("IMAGE", "BYTES", -1) | {"parameters": {"content_type": "base64"}}
    found = propose(metadata([image], [tensor("TEXT")]))
    assert found.tensors.base64
    assert base64.b64decode(found.sample["input"][0]["image"]["content"]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "0 `inputs`"),
        (metadata([5], [tensor("A")]), "`inputs`"),
        (metadata([{"name": "A", "datatype": "BYTES", "shape": "x"}], [tensor("A")]), "`inputs`"),
        (metadata([tensor("TEXT")], []), "0 `outputs`"),
        (metadata([tensor("input_ids", "INT64", -1, -1)], [tensor("logits", "FP32", -1, -1)]), "token numbers"),
        (metadata([tensor("X", "FP32", -1, 4)], [tensor("Y", "FP32")]), "X FP32[-1, 4]"),
    ],
    ids=["nothing", "no tensor", "no shape", "no outputs", "tokens", "numbers"],
)
def test_what_is_no_task_is_said(document: dict[str, Any], says: str) -> None:
    with pytest.raises(Unclear, match=says.replace("[", r"\[")):
        propose(document)
