"""A listing's API as a page, and its OpenAPI document as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from haat.catalog.model import Listing, Version
from haat.kernel.errors import NotFound
from haat.language.messages import N_, _
from haat.portal.reference import at_gateway, read_reference
from haat.portal.task_document import task_document
from haat.portal.visit import Visit, VisitOf

PLACES = {
    "query": N_("in the query"),
    "path": N_("in the path"),
    "header": N_("as a header"),
    "cookie": N_("as a cookie"),
    "formData": N_("in the form"),
}
"""Where a parameter stands."""

router = APIRouter(prefix="/services/{provider}/{service}")


def document_of(listing: Listing, version: Version) -> Mapping[str, Any] | None:
    """Return a version's own OpenAPI document, or the one of its task; None when there is neither."""
    return version.openapi if version.openapi is not None else task_document(listing, version)


async def _asked(visit: Visit, provider: str, service: str) -> tuple[Listing, list[Version], Version]:
    """Return a listing, its accepted versions that still serve, and the one that the address names: else the default.

    Raise NotFound for a version that there isn't.
    """
    listing = await visit.platform.discovery.listing(visit.actor, provider, service)
    found = await visit.platform.discovery.versions(visit.actor, listing.id)
    versions = [one for one in found if one.accepted_at is not None and one.retired_at is None]
    named = visit.request.query_params.get("version", "")
    version = next((one for one in versions if one.version == named or (not named and one.is_default)), None)
    if version is None:
        raise NotFound(_("The service has no such version that serves calls."))
    return listing, versions, version


@router.get("/api")
async def reference(visit: VisitOf, provider: str, service: str) -> Response:
    """Show the operations of a version; nothing that its provider wrote is more than text here."""
    listing, versions, version = await _asked(visit, provider, service)
    document = document_of(listing, version)
    return visit.render(
        "reference.html",
        listing=listing,
        versions=versions,
        version=version,
        own=version.openapi is not None,
        places=PLACES,
        reference=read_reference(document) if document is not None else None,
        address=f"/v1/services/{listing.path}",
    )


@router.get("/api.json")
async def document(visit: VisitOf, provider: str, service: str) -> Response:
    """Give the document as a file to keep, its calls addressed to the gateway."""
    listing, _versions, version = await _asked(visit, provider, service)
    found = document_of(listing, version)
    if found is None:
        raise NotFound(_("The version has no OpenAPI document."))
    address = f"{visit.platform.settings.gateway_address}/v1/services/{listing.path}"
    body = json.dumps(at_gateway(found, address), ensure_ascii=False, indent=2)
    name = f"{listing.provider_slug}-{listing.slug}-{version.version}.openapi.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return Response(body, media_type="application/json", headers=headers)
