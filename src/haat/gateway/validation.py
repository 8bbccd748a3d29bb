"""Batches looked at before they go to the provider, for versions that ask for it: ``policy.validation``.

The rules are `haat.language.validation`'s, the limits those of the version, or of the caller's plan where the version
names it. Other versions' calls don't come here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, cast

import msgspec

from haat.gateway.http.answers import Whole
from haat.gateway.http.headers import coding_of
from haat.kernel.errors import InvalidRequest, MalformedJson, ValidationFailed
from haat.language import validation
from haat.language.validation import Finding, Rules
from haat.plugins.builtin.lexicon import LANGUAGES, Lexicon
from haat.plugins.text import Unreadable, unfold

if TYPE_CHECKING:
    from haat.gateway.call import Call
    from haat.gateway.gateway import Gateway
    from haat.gateway.market.policy import ValidationPolicy
    from haat.gateway.market.routes import Route, Step

_MOST_SHOWN = 20
_decode = msgspec.json.Decoder().decode


def validation_step(gateway: Gateway, route: Route) -> Step | None:
    """Return what looks at a version's batches, or None when it doesn't ask for that."""
    policy = route.version.policy.validation
    if policy is None or not route.version.takes_tasks:
        return None
    usual = rules_of(policy, "")
    by_plan = {plan: rules_of(policy, plan) for plan in policy.plans}
    is_profane = None if policy.profanity == "allow" else _is_profane

    def step(gateway: Gateway, call: Call) -> bool:
        if call.method != b"POST":
            return True
        plan = "" if call.subscription is None else call.subscription.plan
        found = validation.validate(_body(call), by_plan.get(plan, usual), is_profane)
        if found.errors:
            raise ValidationFailed(
                errors=[{"field": error.field[:200], "message": error.message} for error in found.errors]
            )
        if found.flags:
            call.on_answer = [*call.on_answer, _Flagged(found.flags)]
        return True

    return step


def rules_of(policy: ValidationPolicy, plan: str) -> Rules:
    """Return what a version's policy comes to for callers on a plan; an empty one for all others."""
    own = policy.plans.get(plan)
    return Rules(
        items=own.items if own is not None and own.items else policy.items,
        total=own.total if own is not None and own.total else policy.total,
        least=policy.least,
        most=own.most if own is not None and own.most else policy.most,
        repeats=policy.repeats,
        empty=policy.empty,
        duplicates=cast(validation.Duplicates, policy.duplicates),
        language=policy.language,
        profanity=cast(validation.Profanity, policy.profanity),
    )


def _body(call: Call) -> object:
    try:
        return _decode(unfold(b"".join(call.body), coding_of(call.lines)))
    except Unreadable as error:
        raise InvalidRequest(f"This service looks at what it is sent, and can't: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJson from error


@lru_cache(maxsize=1)
def _lexicon() -> Lexicon:
    return Lexicon.of(LANGUAGES)


def _is_profane(text: str) -> bool:
    return next(_lexicon().find(text), None) is not None


class _Flagged:
    """Names in the answer's head the fields that were let pass with a mark: ``X-Haat-Flagged``."""

    __slots__ = ("_line",)

    def __init__(self, flags: tuple[Finding, ...]) -> None:
        fields = ", ".join(
            flag.field for flag in flags[:_MOST_SHOWN] if flag.field.isascii() and flag.field.isprintable()
        )
        self._line = f"X-Haat-Flagged: {fields or 'input'}\r\n".encode("ascii")

    def answered(self, call: Call, answer: Whole) -> None:
        answer.lines = [*answer.lines, self._line]

    def missed(self, call: Call) -> None:
        """An answer that isn't taken whole has its head already."""
