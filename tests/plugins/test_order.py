from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from haat.plugins.order import Place, arrange, without_needs

STAGES = [Place("first", 100), Place("second", 200), Place("third", 300)]


def test_numbers_place_plugins_among_the_stages() -> None:
    plugins = [Place("late", 250), Place("early", 50), Place("middle", 150)]
    assert arrange(STAGES, plugins) == (["early", "first", "middle", "second", "late", "third"], [])


def test_what_wants_to_be_tried_first_or_last_comes_before_and_after_all_numbers() -> None:
    plugins = [Place("last", 1, tier=2), Place("first of all", 999, tier=0)]
    assert arrange(STAGES, plugins)[0] == ["first of all", "first", "second", "third", "last"]


def test_a_wish_wins_over_a_number() -> None:
    plugins = [Place("a", 500, before=("second",)), Place("b", 10, after=("a",))]
    assert arrange(STAGES, plugins)[0] == ["first", "a", "b", "second", "third"]


def test_equal_numbers_are_in_the_order_of_their_names_however_they_are_found() -> None:
    for found in permutations([Place("x", 500), Place("y", 500), Place("z", 500)]):
        assert arrange(STAGES, found)[0] == ["first", "second", "third", "x", "y", "z"]


def test_a_circle_is_left_out_and_the_rest_goes_on() -> None:
    plugins = [Place("a", 1, before=("b",)), Place("b", 2, before=("a",)), Place("c", 150)]
    assert arrange(STAGES, plugins) == (["first", "c", "second", "third"], ["a", "b"])


def test_what_only_waits_for_a_circle_is_not_left_out_with_it() -> None:
    plugins = [Place("a", 1, before=("b",)), Place("b", 2, before=("a",)), Place("guard", 150, after=("b",))]
    assert arrange(STAGES, plugins) == (["first", "guard", "second", "third"], ["a", "b"])


def test_nobody_can_turn_the_stages_around() -> None:
    plugins = [Place("a", 1, after=("third",), before=("first",))]
    assert arrange(STAGES, plugins) == (["first", "second", "third"], ["a"])


names = st.sampled_from([*"abcdef", "first", "second", "third", "nobody"])


@given(
    st.lists(
        st.builds(
            Place,
            st.sampled_from([*"abcdef"]),
            st.integers(0, 400),
            st.integers(0, 2),
            st.lists(names, max_size=2).map(tuple),
            st.lists(names, max_size=2).map(tuple),
        ),
        unique_by=lambda place: place.name,
    )
)
def test_every_wish_of_a_placed_plugin_is_kept_and_the_stages_stay_in_order(plugins: list[Place]) -> None:
    arranged, left_out = arrange(STAGES, plugins)
    assert sorted([*arranged, *left_out]) == sorted([*(s.name for s in STAGES), *(p.name for p in plugins)])
    assert [name for name in arranged if name in {"first", "second", "third"}] == ["first", "second", "third"]
    for place in plugins:
        if place.name in left_out:
            continue
        at = arranged.index(place.name)
        assert all(arranged.index(name) > at for name in place.before if name in arranged)
        assert all(arranged.index(name) < at for name in place.after if name in arranged)


def test_a_plugin_whose_need_does_not_run_does_not_run_either_and_so_on() -> None:
    needs = {"a": ("b",), "b": ("c",), "c": ("absent",), "d": (), "e": ("d",)}
    assert without_needs(needs) == {"c": "absent", "b": "c", "a": "b"}


def test_two_plugins_that_require_each_other_can_run() -> None:
    assert without_needs({"a": ("b",), "b": ("a",)}) == {}
