"""What a page says after a form did its work: the address carries the word, never the sentence."""

from __future__ import annotations

NOTICES = {
    "signed-out": "You are signed out.",
    "welcome": "Welcome. Choose a service in the catalog; subscribing makes your first application on the way.",
    "application": "The application is ready. Give it a key next.",
    "revoked": "The key is revoked. Every gateway refuses it within a second.",
    "job-cancelled": "The job is being stopped. Calls that run are carried to their end.",
    "job-retried": "The items that did not succeed are executed again.",
    "resent": "The message is sent again, with the same id.",
    "endpoint-enabled": "The address is told again.",
    "endpoint-deleted": "The address is told no more.",
    "subscribed": "Subscribed. Calls with this application's keys are open now.",
    "plan": "The plan is changed and counts from now on.",
    "cancelled": "The subscription has ended. What was used until now stays on the next invoice.",
    "registered": "Your registration is with the operator. You get a mail when it is decided.",
    "published": "The service is open to buyers.",
    "priced": "The new price counts from now on; earlier usage keeps the earlier price.",
    "version": "The version is added. It serves nobody before its acceptance call succeeds.",
    "accepted": "The acceptance call succeeded; this version serves calls now.",
    "approved": "The partner is approved and was told by mail.",
    "rejected": "The registration is rejected; the partner was told the reason by mail.",
    "suspended": "The partner is suspended. None of its services is served.",
    "deprecated": "The end of the service is announced; it serves until then.",
    "networks": "The networks are set.",
    "restored": "The partner is approved again.",
    "replayed": "The job runs again. It disappears from this list when it succeeds.",
    "invoiced": "The invoice run is done. Running it again changes nothing.",
}
