"""Use cases of flags. Each change is an event of ``flag/<key>`` that holds the whole flag: they are its history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from haat.flags import store
from haat.flags.draft import FlagDraft, RuleDraft, check_key
from haat.flags.model import Flag
from haat.infra import events
from haat.infra.postgres import PLATFORM_SCOPE, Connection, Database
from haat.kernel.clock import Clock
from haat.kernel.errors import ConcurrentChange, NotFound, ValidationFailed
from haat.kernel.permissions import Actor, Permission
from haat.language.messages import _

MOST_FLAGS = 1000
"""Every process holds all of them."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a flag's history: what was done, by whom, and the flag as it was left."""

    version: int
    type: str
    at: datetime
    actor: str
    data: Mapping[str, Any]


class Flags:
    """The operator's flags. Everybody else only sees what they are worth, see `haat.flags.switchboard`."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def directory(self, actor: Actor) -> list[Flag]:
        """Return all flags by their keys."""
        actor.require(Permission.FLAGS_EDIT)
        return list((await self.present()).values())

    async def get(self, actor: Actor, key: str) -> Flag:
        """Return a flag; raise NotFound."""
        actor.require(Permission.FLAGS_EDIT)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await store.flag(connection, key)
        return flag_of(_found(row, key))

    async def present(self) -> dict[str, Flag]:
        """Return all flags as they are, for whoever evaluates them."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            rows = await store.flags(connection)
        return {row["key"]: flag_of(row) for row in rows}

    async def history(self, actor: Actor, key: str) -> list[Change]:
        """Return a flag's changes, the newest first; those of a flag that was removed too. Raise NotFound."""
        actor.require(Permission.FLAGS_EDIT)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            found = await events.read_stream(connection, f"flag/{key}")
        if not found:
            raise NotFound(_("There is no flag %(key)s, and there never was.", key=key))
        return [Change(one.version, one.type, one.at, one.actor, one.data) for one in reversed(found)]

    async def put(self, actor: Actor, key: str, draft: FlagDraft, *, version: int | None = None) -> Flag:
        """Make a flag, or replace what is written of it; overrides stay.

        With ``version``, 0 for a flag that isn't there yet, raise ConcurrentChange when somebody else was faster.
        Raise ValidationFailed when an override has a variant that is no more.
        """
        actor.require(Permission.FLAGS_EDIT)
        check_key(key)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = await store.flag(connection, key, for_change=True)
            present = row["version"] if row else 0
            if version is not None and version != present:
                raise ConcurrentChange(
                    _(
                        "%(key)s is at version %(present)s, not %(version)s: reload it and decide again.",
                        key=key,
                        present=present,
                        version=version,
                    )
                )
            if row is None and len(await store.flags(connection)) >= MOST_FLAGS:
                raise ValidationFailed(
                    errors=[
                        {"field": "key", "message": _("There are %(most_flags)s flags already.", most_flags=MOST_FLAGS)}
                    ]
                )
            lost = await store.unset_variants(connection, key, list(draft.variants))
            if lost:
                message = _("Overrides still have %(lost)s: change or remove those first.", lost=", ".join(lost))
                raise ValidationFailed(errors=[{"field": "variants", "message": message}])
            await store.put(connection, key, draft.plain(), present + 1, self._clock.now(), actor.label)
            return await self._record(connection, actor, key, "flag.changed" if row else "flag.created")

    async def switch(self, actor: Actor, key: str, enabled: bool) -> Flag:
        """Switch a flag on, or off: then it serves its ``off`` variant to all. Doing it twice changes nothing."""
        draft, flag = await self._drafted(actor, key)
        if flag.enabled == enabled:
            return flag
        changed = draft.model_copy(update={"enabled": enabled})
        return await self._replace(actor, flag, changed, "flag.switched_on" if enabled else "flag.switched_off")

    async def set_percent(self, actor: Actor, key: str, percent: float, variant: str | None = None) -> Flag:
        """Set to how many of everybody the flag serves ``variant``, default the first that isn't its ``off``.

        That is the rule without conditions that has a percentage: the last one, made when there is none.
        """
        draft, flag = await self._drafted(actor, key)
        if variant is not None and variant not in draft.variants:
            raise _no_variant(draft.variants)
        variant = variant or next((name for name in draft.variants if name != draft.off), draft.off)
        rules = list(draft.rules)
        at = next((place for place, rule in enumerate(rules) if not rule.when and rule.percent is not None), None)
        by = rules[at].by if at is not None else "targetingKey"
        rule = {"variant": variant, "percent": percent, "by": by}
        if at is None:
            at = len(rules)
            rules.append(RuleDraft(variant=variant))
        written = draft.plain()
        written["rules"] = [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in rules]
        written["rules"][at] = rule
        try:
            changed = FlagDraft.parse(written)
        except ValidationFailed as error:
            message = error.extensions["errors"][0]["message"]
            raise ValidationFailed(errors=[{"field": "percent", "message": message}]) from error
        return await self._replace(actor, flag, changed, "flag.percentage_set")

    async def override(self, actor: Actor, key: str, org: UUID, variant: str | None) -> Flag:
        """Serve one organisation a variant whatever the rules say; None takes that back. Raise NotFound."""
        actor.require(Permission.FLAGS_EDIT)
        now = self._clock.now()
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            flag = flag_of(_found(await store.flag(connection, key, for_change=True), key))
            if variant is not None and variant not in flag.variants:
                raise _no_variant(flag.variants)
            if variant is not None:
                await store.set_override(connection, key, org, variant, now)
            elif not await store.remove_override(connection, key, org):
                raise NotFound(_("%(key)s has no override for this organisation.", key=key))
            await store.touch(connection, key, now, actor.label)
            type = "flag.override_set" if variant is not None else "flag.override_removed"
            return await self._record(connection, actor, key, type, org=str(org))

    async def remove(self, actor: Actor, key: str) -> None:
        """Forget a flag and its overrides: who asks for it gets what the asking code has as its default."""
        actor.require(Permission.FLAGS_EDIT)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            _found(await store.flag(connection, key, for_change=True), key)
            await store.remove(connection, key)
            await self._append(connection, actor, key, "flag.removed", {})

    async def _drafted(self, actor: Actor, key: str) -> tuple[FlagDraft, Flag]:
        actor.require(Permission.FLAGS_EDIT)
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = _found(await store.flag(connection, key), key)
        return FlagDraft.parse(row["definition"]), flag_of(row)

    async def _replace(self, actor: Actor, flag: Flag, draft: FlagDraft, type: str) -> Flag:
        """Write a flag that nobody has changed since it was read."""
        async with self._db.transaction(PLATFORM_SCOPE) as connection:
            row = _found(await store.flag(connection, flag.key, for_change=True), flag.key)
            if row["version"] != flag.version:
                raise ConcurrentChange(_("Somebody else changed %(key)s: reload it and decide again.", key=flag.key))
            await store.put(connection, flag.key, draft.plain(), flag.version + 1, self._clock.now(), actor.label)
            return await self._record(connection, actor, flag.key, type)

    async def _record(self, connection: Connection, actor: Actor, key: str, type: str, **more: Any) -> Flag:
        row = _found(await store.flag(connection, key), key)
        data = {**row["definition"], "overrides": row["overrides"], "version": row["version"], **more}
        await self._append(connection, actor, key, type, data)
        return flag_of(row)

    async def _append(self, connection: Connection, actor: Actor, key: str, type: str, data: Mapping[str, Any]) -> None:
        await events.append(
            connection,
            stream=f"flag/{key}",
            type=type,
            data=data,
            actor=actor.label,
            org=None,
            at=self._clock.now(),
        )


def flag_of(row: Mapping[str, Any]) -> Flag:
    return FlagDraft.parse(row["definition"]).flag(
        row["key"],
        overrides=row["overrides"],
        version=row["version"],
        changed_at=row["changed_at"],
        changed_by=row["changed_by"],
    )


def _no_variant(variants: Mapping[str, Any]) -> ValidationFailed:
    return ValidationFailed(
        errors=[{"field": "variant", "message": _("Choose one of %(variants)s.", variants=", ".join(variants))}]
    )


def _found(row: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
    if row is None:
        raise NotFound(_("There is no flag %(key)s.", key=key))
    return row
