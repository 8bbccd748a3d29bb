"""What a flag is worth: stable, monotone, and with OpenFeature's own words for why."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haat.flags.draft import FlagDraft, check_key, written
from haat.flags.model import ErrorCode, Flag, Reason, evaluate
from haat.kernel.errors import ValidationFailed

NAMES = st.text(min_size=1, max_size=40)


def flag(key: str = "new-search", overrides: dict[str, str] | None = None, **members: Any) -> Flag:
    return FlagDraft.parse(members).flag(key, overrides=overrides or {})


def percent(share: float, **more: Any) -> dict[str, Any]:
    return {"variant": "on", "percent": share, **more}


def worth(found: Flag, **context: Any) -> tuple[Any, Reason]:
    evaluation = evaluate(found, found.key, context)
    return evaluation.value, evaluation.reason


def test_a_flag_without_rules_is_the_same_for_all() -> None:
    assert worth(flag(default="on")) == (True, Reason.STATIC)


def test_a_flag_whose_rules_do_not_fit_has_its_default() -> None:
    found = flag(rules=[{"variant": "on", "when": [{"attribute": "plan", "in": ["pro"]}]}])
    assert worth(found, plan="free") == (False, Reason.DEFAULT)
    assert worth(found) == (False, Reason.DEFAULT)
    assert worth(found, plan="pro") == (True, Reason.TARGETING_MATCH)


def test_the_first_rule_that_fits_decides() -> None:
    block = {"variant": "off", "when": [{"attribute": "user", "in": ["mallory"]}]}
    allow = {"variant": "on", "when": [{"attribute": "language", "not_in": ["en-Latn"]}]}
    found = flag(rules=[block, allow])
    assert worth(found, user="mallory", language="hi-Deva") == (False, Reason.TARGETING_MATCH)
    assert worth(found, user="asha", language="hi-Deva") == (True, Reason.TARGETING_MATCH)
    assert worth(found, user="asha", language="en-Latn") == (False, Reason.DEFAULT)


def test_an_attribute_can_be_a_list_of_which_one_is_enough() -> None:
    found = flag(rules=[{"variant": "on", "when": [{"attribute": "plan", "in": ["pro"]}]}])
    assert worth(found, plan=["free", "pro"]) == (True, Reason.TARGETING_MATCH)


def test_an_organisations_override_comes_before_the_rules_and_after_the_switch() -> None:
    found = flag(rules=[{"variant": "off"}], overrides={"acme": "on"})
    assert worth(found, organisation="acme") == (True, Reason.TARGETING_MATCH)
    assert worth(found, organisation="other") == (False, Reason.TARGETING_MATCH)
    dark = flag(rules=[{"variant": "on"}], overrides={"acme": "on"}, enabled=False)
    assert worth(dark, organisation="acme") == (False, Reason.DISABLED)


@pytest.mark.parametrize(
    ("context", "error"),
    [
        ({}, ErrorCode.TARGETING_KEY_MISSING),
        ({"targetingKey": ""}, ErrorCode.TARGETING_KEY_MISSING),
        ({"targetingKey": 7}, ErrorCode.INVALID_CONTEXT),
        ({"targetingKey": ["a"]}, ErrorCode.INVALID_CONTEXT),
        ({"targetingKey": "a", "plan": {"code": "pro"}}, ErrorCode.INVALID_CONTEXT),
        ({"targetingKey": "a", "plan": ["pro", 1]}, ErrorCode.INVALID_CONTEXT),
    ],
)
def test_what_cannot_be_evaluated_is_an_error_with_its_code(context: dict[str, Any], error: ErrorCode) -> None:
    evaluation = evaluate(flag(rules=[percent(50)]), "new-search", context)
    assert (evaluation.reason, evaluation.error, evaluation.value) == (Reason.ERROR, error, None)
    assert evaluation.message


def test_a_flag_that_is_none_is_not_found() -> None:
    assert evaluate(None, "gone", {}).error is ErrorCode.FLAG_NOT_FOUND


def test_a_flag_that_names_what_it_does_not_have_is_no_flag() -> None:
    broken = Flag("broken", "boolean", {"on": True}, default="off", off="on")
    assert evaluate(broken, "broken", {}).error is ErrorCode.PARSE_ERROR


@given(NAMES, st.integers(0, 10_000))
def test_the_same_subject_gets_the_same_each_time(subject: str, buckets: int) -> None:
    found = flag(rules=[percent(buckets / 100)])
    assert evaluate(found, found.key, {"targetingKey": subject}) == evaluate(
        found, found.key, {"targetingKey": subject}
    )


@given(NAMES, st.integers(0, 10_000), st.integers(0, 10_000))
def test_who_has_a_variant_keeps_it_when_the_percentage_grows(subject: str, one: int, other: int) -> None:
    small, large = (
        worth(flag(rules=[percent(share / 100)]), targetingKey=subject)[0] for share in sorted((one, other))
    )
    assert large or not small


@given(NAMES)
def test_nobody_has_none_percent_and_everybody_a_hundred(subject: str) -> None:
    assert worth(flag(rules=[percent(0)]), targetingKey=subject) == (False, Reason.DEFAULT)
    assert worth(flag(rules=[percent(100)]), targetingKey=subject) == (True, Reason.SPLIT)


@pytest.mark.parametrize("share", [1.0, 12.34, 50.0])
def test_a_percentage_is_about_that_many(share: float) -> None:
    found = flag(rules=[percent(share)])
    hit = sum(worth(found, targetingKey=f"user-{number}")[0] for number in range(20_000))
    assert abs(hit / 200 - share) < 4 * (share * (100 - share) / 20_000) ** 0.5


def test_flags_divide_independently_and_rules_of_one_flag_share_its_buckets() -> None:
    users = [f"user-{number}" for number in range(4000)]
    both = sum(all(worth(flag(key, rules=[percent(50)]), targetingKey=user)[0] for key in ("a", "b")) for user in users)
    assert 850 < both < 1150
    colours = {"kind": "string", "variants": {"none": "none", "red": "red", "blue": "blue"}, "default": "none",
               "off": "none"}  # fmt: skip
    two = flag(**colours, rules=[{"variant": "red", "percent": 30}, {"variant": "blue", "percent": 50}])
    counts = {
        colour: sum(worth(two, targetingKey=user)[0] == colour for user in users) for colour in colours["variants"]
    }
    assert 1080 < counts["red"] < 1320 and 690 < counts["blue"] < 910


def test_a_percentage_can_go_by_organisation() -> None:
    found = flag(rules=[percent(50, by="organisation")])
    first = {worth(found, organisation="acme", targetingKey=f"user-{number}")[0] for number in range(50)}
    assert len(first) == 1


CONTEXTS = st.dictionaries(
    st.sampled_from(["targetingKey", "organisation", "plan", "user", "other"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    ),
)


@given(CONTEXTS)
def test_no_context_breaks_an_evaluation(context: dict[str, Any]) -> None:
    when = [{"attribute": "plan", "in": ["pro"]}, {"attribute": "user", "not_in": ["x"]}]
    found = flag(rules=[percent(50, when=when), percent(10)], overrides={"acme": "on"})
    evaluation = evaluate(found, found.key, context)
    assert (evaluation.value is None) == (evaluation.error is not None)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"kind": "colour"}, "kind"),
        ({"variants": {}}, "variants"),
        ({"variants": {"on": 1, "off": False}}, "flag"),
        ({"kind": "number", "variants": {"off": True}, "default": "off"}, "flag"),
        ({"default": "maybe"}, "flag"),
        ({"rules": [{"variant": "maybe"}]}, "flag"),
        ({"rules": [percent(101)]}, "rules.0.percent"),
        ({"rules": [percent(-1)]}, "rules.0.percent"),
        ({"rules": [percent(0.001)]}, "rules.0.percent"),
        ({"rules": [percent(float("nan"))]}, "rules"),
        ({"rules": [percent(5, by="plan")]}, "rules.0.by"),
        ({"rules": [{"variant": "on", "when": [{"attribute": "colour", "in": ["x"]}]}]}, "rules.0.when.0.attribute"),
        ({"rules": [{"variant": "on", "when": [{"attribute": "plan"}]}]}, "rules.0.when.0"),
        (
            {"rules": [{"variant": "on", "when": [{"attribute": "plan", "in": ["a"], "not_in": ["b"]}]}]},
            "rules.0.when.0",
        ),
        ({"rules": [{"variant": "on"}] * 51}, "rules"),
        ({"description": "\0"}, "description"),
        ({"owner": "me"}, "owner"),
    ],
)
def test_what_is_no_flag_is_refused_by_its_field(members: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationFailed) as refused:
        FlagDraft.parse(members)
    assert refused.value.extensions["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("kind", "value"), [("string", "हिन्दी"), ("number", 0.5), ("number", 3), ("object", {"limit": [1, 2]})]
)
def test_flags_of_every_kind_are_written_and_read_again(kind: str, value: Any) -> None:
    when = [{"attribute": "plan", "not_in": ["free"]}]
    draft = FlagDraft.parse(
        {"kind": kind, "variants": {"one": value}, "default": "one", "off": "one",
         "rules": [{"variant": "one", "percent": 12.34, "by": "user", "when": when}]}
    )  # fmt: skip
    assert written(draft.flag("key")).plain() == draft.plain()
    assert FlagDraft.parse(draft.plain()) == draft
    assert evaluate(draft.flag("key"), "key", {"plan": "free"}).value == value


@pytest.mark.parametrize("key", ["", "-a", "a-", "A", "a b", "a/b", "a" * 81, "ä", "a\n"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValidationFailed):
        check_key(key)
    assert check_key("portal.try-it_2") == "portal.try-it_2"
