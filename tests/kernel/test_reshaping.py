import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.kernel.reshaping import MAX_PLACES, Misshapen, check, compile_change, parse_path


def change(document: Any, *changes: tuple[Any, ...]) -> Any:
    for do, path, *rest in changes:
        to, value = (*rest, "", None)[:2] if do in ("rename", "move") else ("", *rest, None)[:2]
        compile_change(do, path, to, value)(document)
    return document


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ("a",)),
        ("a.b", ("a", "b")),
        ("input[].text", ("input", None, "text")),
        ("[].a[0][]", (None, "a", 0, None)),
        ("पाठ.x-y z", ("पाठ", "x-y z")),
    ],
)
def test_paths_are_read(text: str, parts: tuple[Any, ...]) -> None:
    assert parse_path(text) == parts


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "a[", "a]b", "a[x]", "a.[0]", "a[0]b", "a" * 65, "a." * 20 + "a", "[12345]"]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_path(text)


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ({"a": 1}, [("rename", "a", "b")], {"b": 1}),
        ({"a": [{"x": 1}, {"y": 2}]}, [("rename", "a[].x", "z")], {"a": [{"z": 1}, {"y": 2}]}),
        ({"text": "t"}, [("move", "text", "input[0].text")], {"input": [{"text": "t"}]}),
        ({"out": [{"t": 1}, {"t": 2}]}, [("move", "out[].t", "texts[]"), ("remove", "out")], {"texts": [1, 2]}),
        ({"out": [{}, {"t": 2}]}, [("move", "out[].t", "texts[]")], {"out": [{}, {}], "texts": [None, 2]}),
        ({"a": [[1], [2, 3]]}, [("move", "a[][]", "b[][]")], {"a": [[], []], "b": [[1], [2, 3]]}),
        ({}, [("set", "config.source", "hi")], {"config": {"source": "hi"}}),
        ({"a": [{}, {}]}, [("set", "a[].k.n", {"v": []})], {"a": [{"k": {"n": {"v": []}}}] * 2}),
        ({"a": [1, 2]}, [("set", "a[]", 0)], {"a": [0, 0]}),
        ({"a": [1, 2, 3]}, [("remove", "a[1]")], {"a": [1, 3]}),
        ({"a": [1, 2, 3]}, [("remove", "a[]")], {"a": []}),
        ({"a": None}, [("remove", "a.b"), ("set", "a.b", 1)], {"a": {"b": 1}}),
        ({"a": 1}, [("remove", "b.c"), ("rename", "x", "y"), ("move", "p", "q.r")], {"a": 1}),
        ([{"x": 1}], [("rename", "[].x", "y")], [{"y": 1}]),
    ],
)
def test_documents_change_as_declared(before: Any, changes: list[tuple[Any, ...]], after: Any) -> None:
    assert change(before, *changes) == after


def test_values_that_are_set_are_not_shared() -> None:
    document = change({"a": [{}, {}]}, ("set", "a[].v", []))
    document["a"][0]["v"].append(1)
    assert document["a"][1]["v"] == []


@pytest.mark.parametrize(
    ("document", "made"),
    [
        ({"a": "text"}, ("set", "a.b", 1)),
        ({"a": "text"}, ("remove", "a.b")),
        ({"a": {"b": 1}}, ("rename", "a[].b", "c")),
        ("text", ("set", "a", 1)),
        ({"a": []}, ("set", "a.b", 1)),
    ],
)
def test_another_shape_than_the_path_says_is_an_error_that_names_the_place(
    document: Any, made: tuple[Any, ...]
) -> None:
    with pytest.raises(Misshapen, match=r"is not (an object|a list)"):
        change(document, made)


def test_the_places_one_change_touches_are_bounded() -> None:
    with pytest.raises(Misshapen):
        change({"a": [{"b": 1}] * (MAX_PLACES + 1)}, ("remove", "a[].b"))
    with pytest.raises(Misshapen):
        change({"a": [0] * (MAX_PLACES + 1)}, ("set", "a[]", 1))


@pytest.mark.parametrize(
    "made",
    [
        ("set_header", "Host", "", "x"),
        ("set_header", "X-Haat-Units", "", "x"),
        ("set_header", "Authorization", "", "x"),
        ("set_header", "a b", "", "x"),
        ("set_header", "X-Ok", "", "a\r\nb"),
        ("set_header", "X-Ok", "", 7),
        ("remove_header", "Content-Length", "", None),
        ("rename", "a", "b.c", None),
        ("rename", "a[]", "b", None),
        ("move", "a[]", "b", None),
        ("set", "a", "b", 1),
        ("remove", "a", "b", None),
        ("set", "a..b", "", 1),
    ],
)
def test_changes_that_can_not_be_made_are_refused(made: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"."):
        check(*made)


documents = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from("abc"), x, max_size=3),
    max_leaves=12,
)
paths = st.lists(st.sampled_from(["a", "b", "c", "[]", "[0]", "[1]"]), min_size=1, max_size=4).map(
    lambda parts: "".join(part if part[0] == "[" else f".{part}" for part in parts).removeprefix(".")
)


@given(documents, paths, paths, st.sampled_from(["set", "remove", "move"]))
def test_whatever_the_document_a_change_is_made_or_refused(document: Any, path: str, to: str, do: Any) -> None:
    try:
        made = compile_change(do, path, to if do == "move" else "", 1)
    except ValueError:
        return
    try:
        made(document)
    except Misshapen:
        return
    if do == "set" and "[" not in path:
        node = document
        for key in path.split("."):
            node = node[key]
        assert node == 1


@given(documents, paths)
def test_removing_twice_is_removing_once_unless_a_place_in_a_list_is_named(document: Any, path: str) -> None:
    if "[0]" in path or "[1]" in path:
        return
    made = compile_change("remove", path, "", None)
    try:
        made(document)
    except Misshapen:
        return
    once = copy.deepcopy(document)
    made(document)
    assert document == once
