"""The words of what the domains write as codes: states, what was missed, which promise."""

from __future__ import annotations

from collections.abc import Iterable

from haat.language.messages import N_, gettext

STATES = {
    # listings and partners
    "draft": N_("draft"),
    "published": N_("published"),
    "deprecated": N_("deprecated"),
    "retired": N_("retired"),
    "suspended": N_("suspended"),
    "approved": N_("approved"),
    "rejected": N_("rejected"),
    # subscriptions and keys
    "active": N_("active"),
    "cancelled": N_("cancelled"),
    "live": N_("live"),
    "test": N_("test"),
    # invoices, payments and payouts
    "registering": N_("registering"),
    "issued": N_("issued"),
    "paid": N_("paid"),
    "overdue": N_("overdue"),
    "void": N_("void"),
    "shown": N_("shown"),
    "begun": N_("begun"),
    "held": N_("held"),
    "sent": N_("sent"),
    "reversed": N_("reversed"),
    # disputes
    "open": N_("open"),
    "agreed": N_("agreed"),
    "decided": N_("decided"),
    "withdrawn": N_("withdrawn"),
    # jobs, their items and messages
    "waiting": N_("waiting"),
    "running": N_("running"),
    "cancelling": N_("cancelling"),
    "completed": N_("completed"),
    "expired": N_("expired"),
    "pending": N_("pending"),
    "succeeded": N_("succeeded"),
    "failed": N_("failed"),
    "delivered": N_("delivered"),
    # rollouts and experiments
    "paused": N_("paused"),
    "promoted": N_("promoted"),
    "rolled_back": N_("rolled back"),
    "registered": N_("registered"),
    "ended": N_("ended"),
    "stopped": N_("stopped"),
    # months of a service level
    "kept": N_("kept"),
    "breached": N_("broken"),
    "unmeasured": N_("too few calls"),
}

BUSINESSES = {
    "company": N_("Company"),
    "llp": N_("Limited liability partnership"),
    "partnership": N_("Partnership"),
    "proprietorship": N_("Proprietorship"),
    "society": N_("Society"),
    "university": N_("University"),
    "government": N_("Government"),
    "individual": N_("Individual"),
}
"""The kinds of a partner."""

SIGNALS = {"availability": N_("availability")}
"""What an objective promises; percentiles are called the same everywhere."""

VERDICTS = {
    "answered": N_("answered"),
    "failed": N_("failed"),
    "down": N_("down"),
    "not_counted": N_("not counted"),
}
"""What a call says of its service (`haat.sla.faults.Verdict`)."""


def state_name(state: str) -> str:
    """Return a state's word; a word that a page chose itself stays, translated when it is marked anywhere."""
    return gettext(STATES.get(state, state))


def verdict_name(verdict: str) -> str:
    return gettext(VERDICTS.get(verdict, verdict))


def signal_names(signals: Iterable[str]) -> str:
    """Write the promises that were missed: "availability, p95"."""
    return ", ".join(gettext(SIGNALS.get(signal, signal)) for signal in signals)
