"""The forms in which a provider describes a service, read into the catalog's drafts.

A field is named as the draft names it (``version.endpoint``), so that a refusal finds its field.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from haat.catalog.drafts import PriceDraft, ServiceDraft, VersionDraft
from haat.kernel.errors import ValidationFailed
from haat.language.messages import _
from haat.portal.visit import Fields, Visit

_TEXTS = (
    "slug",
    "name",
    "summary",
    "description",
    "category",
    "unit",
    "visibility",
    "region",
    "docs_url",
    "typical_latency_ms",
    "max_requests_per_second",
    "uptime_sla",
    "credential_header",
    "credential",
)
VERSION_FIELDS = (
    "version.version",
    "version.endpoint",
    "version.dialect",
    "version.health_path",
    "version.languages",
    "version.language_pairs",
    "version.sample.method",
    "version.sample.path",
    "version.sample.body",
    "version.policy.tensors",
    "version.timeout_ms",
    "version.warm_up_seconds",
)
PRICE_FIELDS = ("price.unit_price", "price.free_units")
SERVICE_FIELDS = (*_TEXTS, "retains_inputs", "trains", *VERSION_FIELDS, *PRICE_FIELDS)

_SAMPLE = {"input": [{"text": "नमस्ते दुनिया"}], "config": {}}


def starting_values() -> Fields:
    """Return what an empty form already says."""
    return Fields(
        {
            "category": "translation",
            "unit": "characters",
            "visibility": "public",
            "region": "IN",
            "version.version": "1",
            "version.dialect": "task",
            "version.sample.method": "POST",
            "version.sample.path": "/invoke",
            "version.sample.body": json.dumps(_SAMPLE, ensure_ascii=False, indent=2),
            "price.free_units": "0",
        }
    )


def read_service(visit: Visit) -> ServiceDraft:
    """Return the draft of a whole service; raise ValidationFailed."""
    data: dict[str, Any] = {name: visit.text(name) for name in _TEXTS if visit.text(name)}
    data["retains_inputs"] = visit.text("retains_inputs") == "yes"
    data["trains"] = visit.text("trains") == "yes"
    data["version"] = _version(visit)
    data["price"] = _price(visit)
    draft: ServiceDraft = ServiceDraft.parse(data)
    return draft


def read_version(visit: Visit) -> VersionDraft:
    draft: VersionDraft = VersionDraft.parse(_version(visit))
    return draft


def read_price(visit: Visit) -> PriceDraft:
    draft: PriceDraft = PriceDraft.parse(_price(visit))
    return draft


def fold(errors: Fields, fields: Collection[str]) -> Fields:
    """Bring refusals to the fields that exist: ``version.languages.0`` to ``version.languages``."""
    prefixes = {name.partition(".")[0] for name in fields}
    folded = Fields()
    for name, message in errors.items():
        candidates = (name, *(f"{prefix}.{name}" for prefix in prefixes))
        home = next(
            (
                field
                for candidate in candidates
                for field in fields
                if candidate == field or candidate.startswith(f"{field}.")
            ),
            "",
        )
        folded[home] = message if home or not name else f"{name}: {message}"
    return folded


def _version(visit: Visit) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for field in VERSION_FIELDS:
        *path, name = field.split(".")[1:]
        if visit.text(field):
            (data.setdefault(path[0], {}) if path else data)[name] = visit.text(field)
    for name in ("languages", "language_pairs"):
        data[name] = [part for part in visit.text(f"version.{name}").replace(",", " ").split() if part]
    for part, name in (("sample", "body"), ("policy", "tensors")):
        written = data.setdefault(part, {})
        if name in written:
            try:
                written[name] = json.loads(written[name])
            except ValueError as error:
                message = _("This is not JSON: %(error)s.", error=error)
                raise ValidationFailed(errors=[{"field": f"version.{part}.{name}", "message": message}]) from error
    return data


def _price(visit: Visit) -> dict[str, Any]:
    return {
        name: visit.text(f"price.{name}")
        for name in ("unit_price", "free_units", "plan_code")
        if visit.text(f"price.{name}")
    }
