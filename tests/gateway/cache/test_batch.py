"""Batches taken apart and put together again, with units that add up."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.gateway.cache.batch import (
    MICRO,
    apportion,
    decimal,
    divide,
    micro,
    name_places,
    put_together,
    read_answer,
    take_apart,
    weight,
)


@given(st.integers(0, 10**15), st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_parts_add_up_and_lie_within_one_step_of_their_share(quantity: int, weights: list[int]) -> None:
    parts = apportion(quantity, weights)
    step = MICRO if quantity % MICRO == 0 else 1
    assert sum(parts) == quantity
    for part, one in zip(parts, weights, strict=True):
        assert part % step == 0 and abs(part * sum(weights) - quantity * one) < step * sum(weights)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=20))
def test_characters_fall_to_the_items_that_have_them(texts: list[str]) -> None:
    texts = [text or "x" for text in texts]
    weights = [weight({"text": text}) for text in texts]
    shares = divide({"characters": sum(map(len, texts)) * MICRO}, weights)
    assert [share["characters"] for share in shares] == [len(text) * MICRO for text in texts]


def test_an_item_weighs_what_all_its_texts_weigh_and_never_nothing() -> None:
    assert weight({"text": "नमस्ते", "other": ["ab", {"c": "d"}], "n": 7}) == 9
    assert weight({}) == weight(5) == 1


@given(st.integers(0, 10**15))
def test_millionths_are_written_and_read_without_loss(quantity: int) -> None:
    assert micro(decimal(quantity)) == quantity


def test_an_item_is_the_same_in_every_batch_with_the_same_config() -> None:
    one = take_apart({"input": [{"text": "a"}, {"text": "b"}], "config": {"target": "hi"}}, b"s", [])
    two = take_apart({"input": [{"text": "b"}], "config": {"target": "hi"}}, b"s", [])
    other = take_apart({"input": [{"text": "b"}], "config": {"target": "ur"}}, b"s", [])
    assert one and two and other
    assert one.keys[1] == two.keys[0] != other.keys[0]
    assert json.loads(one.body([1])) == {"input": [{"text": "b"}], "config": {"target": "hi"}}


@pytest.mark.parametrize("data", [[], {"input": []}, {"input": {}}, {"config": {}}, {"input": [0] * 1001}, 3])
def test_what_is_no_batch_is_left_whole(data: object) -> None:
    assert take_apart(data, b"s", []) is None


def test_outputs_keep_their_spelling() -> None:
    answer = read_answer(b'{"usage":{"characters":3,"seconds":0.5},"output":[{"a": 1.50},"\\u0041"],"model":"m"}')
    assert answer is not None
    assert answer.outputs == [b'{"a": 1.50}', b'"\\u0041"']
    assert answer.usage == {"characters": 3 * MICRO, "seconds": MICRO // 2}
    body = put_together(answer.outputs, answer.usage, answer.others)
    assert json.loads(body) == {
        "model": "m",
        "output": [{"a": 1.5}, "A"],
        "usage": {"characters": 3, "seconds": 0.5},
    }


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"output":1}', b'{"output":[1}', b"\xff"])
def test_what_is_no_answer_in_the_schema_is_not_read(body: bytes) -> None:
    assert read_answer(body) is None


def test_a_refusal_of_a_part_names_the_items_by_the_callers_numbers() -> None:
    problem = {
        "code": "VALIDATION_FAILED",
        "input": 1,
        "errors": [
            {"field": "input[0].text", "message": "too long"},
            {"field": "input.1.text", "message": "too long"},
            {"field": "input[7]", "message": "is not there"},
            {"field": "config.source", "message": "wrong"},
        ],
    }
    named = json.loads(name_places(json.dumps(problem).encode(), [4, 9]))
    assert named["input"] == 9
    assert [error["field"] for error in named["errors"]] == [
        "input[4].text",
        "input.9.text",
        "input[7]",
        "config.source",
    ]
    assert name_places(b"no json", [1]) == b"no json"
