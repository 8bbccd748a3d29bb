"""A payment provider that speaks over real HTTP on loopback, and the plugin's side of it.

The server keeps orders, asks for an idempotency key as such providers do, and sends signed messages: late, twice and
in any order, as told.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import httpx
from standardwebhooks import Webhook

from haat.invoices.ports import Checkout, Notice, Return

PAYMENTS = {"payment.captured": "succeeded", "payment.failed": "failed", "payment.pending": "pending"}
RETURNS = {
    "refund.created": ("refund", "pending"),
    "refund.processed": ("refund", "gone"),
    "refund.failed": ("refund", "back"),
    "dispute.created": ("chargeback", "gone"),
    "dispute.lost": ("chargeback", "gone"),
    "dispute.won": ("chargeback", "back"),
}
"""What the provider's messages are about, and what the port calls it. A dispute takes the money when it is created."""


@dataclass
class Till:
    """The provider's own machine."""

    url: str = ""
    secret: str = field(default_factory=lambda: "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: int = 0

    def take(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the order of an idempotency key, made when it is new."""
        known = next((one for one in self.orders.values() if one["key"] == key), None)
        if known is None:
            reference = f"order_{len(self.orders) + 1:04d}"
            known = {"id": reference, "key": key, "pay_at": f"{self.url}/pay/{reference}", **body}
            self.orders[reference] = known
        return known

    def message(
        self, reference: str, event: str, at: datetime, *, amount: int | None = None, currency: str = "INR"
    ) -> tuple[dict[str, str], bytes]:
        """Return the headers and body of a signed message about an order; amounts are paise, as providers have them."""
        paise = self.orders[reference]["amount"] if amount is None else amount
        return self.signed({"event": event, "order": reference, "amount": paise, "currency": currency}, at)

    def back(
        self, reference: str, event: str, name: str, at: datetime, *, amount: int | None = None, currency: str = "INR"
    ) -> tuple[dict[str, str], bytes]:
        """Return the same about a refund or a dispute of an order, which the provider calls ``name``."""
        paise = self.orders[reference]["amount"] if amount is None else amount
        about = {"event": event, "order": reference, "id": name, "amount": paise, "currency": currency}
        return self.signed(about, at)

    def signed(self, content: Any, at: datetime) -> tuple[dict[str, str], bytes]:
        """Return the headers and body of a signed message."""
        self.sent += 1
        body, identifier = json.dumps(content), f"msg_{self.sent}"
        signature = Webhook(self.secret).sign(identifier, at, body)
        stamp = str(int(at.timestamp()))
        return (
            {"webhook-id": identifier, "webhook-timestamp": stamp, "webhook-signature": signature},
            body.encode(),
        )


class Card:
    """What a plugin would bring: it speaks to the till."""

    name = "card"

    def __init__(self, till: Till) -> None:
        self.till = till

    def secrets(self) -> Sequence[str]:
        return [self.till.secret]

    async def begin(self, *, order: UUID, amount: Decimal, description: str) -> Checkout:
        async with httpx.AsyncClient() as client:
            answer = await client.post(
                f"{self.till.url}/orders",
                json={"amount": int(amount * 100), "currency": "INR", "description": description},
                headers={"Idempotency-Key": str(order)},
            )
        answer.raise_for_status()
        made = answer.json()
        return Checkout(made["id"], made["pay_at"])

    def read(self, message: Mapping[str, Any]) -> Notice | Return | None:
        event = message["event"]
        if event in PAYMENTS:
            amount = Decimal(message["amount"]) / 100
            return Notice(message["order"], PAYMENTS[event], amount, message["currency"])  # type: ignore[arg-type]
        if event in RETURNS:
            kind, state = RETURNS[event]
            amount = Decimal(message["amount"]) / 100
            return Return(kind, message["order"], message["id"], state, amount, message["currency"])  # type: ignore[arg-type]
        return None


@contextmanager
def open_till() -> Iterator[Till]:
    """Yield a till that listens on a free port."""
    till = Till()

    class Counter(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(till.take(self.headers["Idempotency-Key"], body)).encode()
            self.send_response(201)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Counter)
    till.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield till
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
