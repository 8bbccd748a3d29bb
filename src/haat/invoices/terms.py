"""How the operator bills: who sells, what an invoice is called, when it is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

from haat.invoices.model import Supplier
from haat.kernel.errors import Conflict
from haat.language.messages import _
from haat.settings import Settings

GRACE = timedelta(hours=1)
"""How long after its end a period waits for usage that is still on its way."""

INDIA = ZoneInfo("Asia/Kolkata")
"""Whose days invoices are dated and due by."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How the operator bills, as its settings say."""

    supplier: Supplier
    billing: str
    supply: str
    payment_days: int

    @classmethod
    def of(cls, settings: Settings) -> Terms:
        supplier = Supplier(
            settings.operator_name,
            settings.operator_address,
            settings.operator_gstin,
            settings.operator_state,
            settings.gst_rate,
            settings.sac_code,
            settings.invoice_prefix,
        )
        return cls(supplier, settings.billing, settings.supply, settings.payment_days)

    @property
    def shows_only(self) -> bool:
        return self.billing == "showback"

    def require_billing(self) -> None:
        """Raise Conflict where nobody is billed."""
        if self.billing == "off":
            raise Conflict(
                _('This platform doesn\'t bill (`billing = "off"`): set `showback` or `invoice` to have it.')
            )
