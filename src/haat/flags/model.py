"""A flag, and what it is worth to somebody: pure, and in OpenFeature's words.

A flag names its variants and which of them is served: first by an organisation's own override, then by the first
rule that fits, then the default. A flag that is switched off serves its ``off`` variant to everybody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from haat.kernel.bucketing import bucket_of

FlagKind = Literal["boolean", "string", "number", "object"]
ATTRIBUTES = ("targetingKey", "organisation", "application", "role", "plan", "language", "user")
"""What a rule may ask of whoever sees a flag. ``targetingKey`` is OpenFeature's name for the one who is asked about."""
SUBJECTS = ("targetingKey", "organisation", "application", "user")
"""By which of them a percentage divides."""
KEY = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,78}[a-z0-9])?")


class Reason(StrEnum):
    """Why a value was served (OpenFeature, types: resolution reason)."""

    STATIC = "STATIC"
    """The flag knows no rules: everybody gets this."""
    DEFAULT = "DEFAULT"
    """It has rules, and none of them fits."""
    TARGETING_MATCH = "TARGETING_MATCH"
    """An override or a rule."""
    SPLIT = "SPLIT"
    """A rule with a percentage, by the subject's bucket."""
    DISABLED = "DISABLED"
    """The flag is switched off."""
    ERROR = "ERROR"
    STALE = "STALE"
    """Another service gave it once, and does not answer now."""
    CACHED = "CACHED"
    UNKNOWN = "UNKNOWN"


class ErrorCode(StrEnum):
    """What went wrong (OpenFeature, types: error code)."""

    FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
    PARSE_ERROR = "PARSE_ERROR"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    TARGETING_KEY_MISSING = "TARGETING_KEY_MISSING"
    INVALID_CONTEXT = "INVALID_CONTEXT"
    GENERAL = "GENERAL"


@dataclass(frozen=True, slots=True)
class Condition:
    """True when the attribute is one of ``values``, or with ``negated`` when it is none of them.

    An attribute that is absent is none of any values. A list counts as each of its members.
    """

    attribute: str
    values: frozenset[str]
    negated: bool = False

    def holds(self, context: Mapping[str, Any]) -> bool:
        found = context.get(self.attribute)
        given = {str(one) for one in found} if isinstance(found, list | tuple) else {str(found)}
        hit = found is not None and not given.isdisjoint(self.values)
        return hit != self.negated


@dataclass(frozen=True, slots=True)
class Rule:
    """Serves ``variant`` to those for whom all conditions hold, and of them to the first ``buckets`` of 10,000.

    All rules of a flag share the buckets: a first rule with 3,000 and a second with 5,000 serve the first 30 % and
    the next 20 %. ``buckets`` None serves everybody.
    """

    variant: str
    when: tuple[Condition, ...] = ()
    buckets: int | None = None
    by: str = "targetingKey"


@dataclass(frozen=True, slots=True)
class Flag:
    """``version`` counts the changes; ``exposed`` flags may be asked for by tenants, others by the operator alone."""

    key: str
    kind: FlagKind
    variants: Mapping[str, Any]
    default: str
    off: str
    enabled: bool = True
    exposed: bool = False
    description: str = ""
    rules: tuple[Rule, ...] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Variants by the id of an organisation."""
    version: int = 1
    changed_at: datetime | None = None
    changed_by: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a flag is worth. With an ``error`` there is no value: the asker's own default holds."""

    key: str
    reason: Reason
    value: Any = None
    variant: str = ""
    version: int = 0
    error: ErrorCode | None = None
    message: str = ""


def evaluate(flag: Flag | None, key: str, context: Mapping[str, Any]) -> Evaluation:
    """Return what ``flag`` (None: there is none of that key) is worth in a context. Never raises."""
    if flag is None:
        return failed(key, ErrorCode.FLAG_NOT_FOUND, f"There is no flag {key}.")
    if not flag.enabled:
        return _served(flag, flag.off, Reason.DISABLED)
    wrong = wrong_attribute(context)
    if wrong:
        return failed(key, ErrorCode.INVALID_CONTEXT, f"The attribute {wrong} must be a text, or a list of texts.")
    own = flag.overrides.get(str(context.get("organisation")))
    if own is not None:
        return _served(flag, own, Reason.TARGETING_MATCH)
    for rule in flag.rules:
        if not all(condition.holds(context) for condition in rule.when):
            continue
        if rule.buckets is None:
            return _served(flag, rule.variant, Reason.TARGETING_MATCH)
        subject = context.get(rule.by)
        if not isinstance(subject, str) or not subject:
            return failed(key, ErrorCode.TARGETING_KEY_MISSING, f"A percentage of {key} goes by {rule.by}: give one.")
        if bucket_of(flag.key, subject) < rule.buckets:
            return _served(flag, rule.variant, Reason.SPLIT)
    return _served(flag, flag.default, Reason.DEFAULT if flag.rules or flag.overrides else Reason.STATIC)


def wrong_attribute(context: Mapping[str, Any]) -> str:
    """Return the name of the first attribute that no rule could compare, empty when all are well."""
    for name in ATTRIBUTES:
        value = context.get(name)
        texts = value if isinstance(value, list | tuple) and name != "targetingKey" else [value]
        if value is not None and not all(isinstance(text, str) for text in texts):
            return name
    return ""


def failed(key: str, error: ErrorCode, message: str) -> Evaluation:
    return Evaluation(key, Reason.ERROR, error=error, message=message)


def fits(kind: FlagKind, value: Any) -> bool:
    """Tell whether a value is of a kind. True and false are no numbers; an object is a mapping."""
    match kind:
        case "boolean":
            return isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "object":
            return isinstance(value, Mapping)


def _served(flag: Flag, variant: str, reason: Reason) -> Evaluation:
    if variant not in flag.variants:
        return failed(flag.key, ErrorCode.PARSE_ERROR, f"{flag.key} names a variant {variant} that it does not have.")
    return Evaluation(flag.key, reason, flag.variants[variant], variant, flag.version)
