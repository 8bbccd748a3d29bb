"""Who may call what: every route, every role, and nobody (OWASP API5:2023, default deny)."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import uuid4

from haat.kernel.permissions import Role
from market import draft
from office import Control

OPERATOR, ADMIN, DEVELOPER, CONSUMER = (
    Role.PLATFORM_ADMIN,
    Role.PARTNER_ADMIN,
    Role.PARTNER_DEVELOPER,
    Role.API_CONSUMER,
)
EVERYBODY = frozenset(Role)
PARTNERS = frozenset({ADMIN, DEVELOPER})
OPERATORS = frozenset({OPERATOR})
MONEY = frozenset({OPERATOR, ADMIN})
EDITORS = frozenset({OPERATOR, ADMIN, CONSUMER})

ID = str(uuid4())
REASON = {"reason": "Because"}
VERSION = {"endpoint": "http://8.8.8.8", "sample": {}}
REGISTRATION = {
    "slug": "another",
    "company_name": "Another",
    "email": "office@example.in",
    "contact_person": "Asha",
    "business_type": "company",
}
PERIOD = {"period": "2026-10"}
CREDIT = {
    "key": "k",
    "reason": "goodwill",
    "items": [{"invoice_line": ID, "taxable": "1.00", "fault": "platform"}],
}

EXPERIMENT = {
    "name": "x",
    "metric": "success_rate",
    "minimum_effect": 0.01,
    "variants": [{"name": "new", "version": "2", "percent": 50}],
    "ends_at": "2027-01-01T00:00:00Z",
}


class Rule(NamedTuple):
    """Who may call a route (None: anybody, without signing in), and a body and query it takes."""

    roles: frozenset[Role] | None
    body: Any = None
    query: str = ""


RULES: dict[str, Rule] = {
    "POST /accounts": Rule(None, {"email": "x", "password": "x", "name": "x", "organisation": "x"}),
    "POST /sessions": Rule(None, {"email": "x", "password": "x"}),
    "GET /listings": Rule(None),
    "GET /listings/{provider}/{service}": Rule(None),
    "GET /autocomplete": Rule(None, query="?prefix=a"),
    "GET /plans": Rule(None),
    "DELETE /sessions/current": Rule(EVERYBODY),
    "GET /me": Rule(EVERYBODY),
    "GET /members": Rule(EVERYBODY),
    "PUT /members/{user_id}/role": Rule(EDITORS, {"role": "x"}),
    "DELETE /members/{user_id}": Rule(EDITORS),
    "GET /invitations": Rule(EDITORS),
    "POST /invitations": Rule(EDITORS, {"email": "new@example.in", "role": "x"}),
    "POST /invitations/accept": Rule(None, {"token": "x", "password": "x"}),
    "POST /invitations/{invitation_id}/resend": Rule(EDITORS),
    "DELETE /invitations/{invitation_id}": Rule(EDITORS),
    "GET /me/account": Rule(EVERYBODY),
    "PATCH /me/account": Rule(EVERYBODY, {}),
    "PUT /me/password": Rule(EVERYBODY, {"present_password": "x", "password": "x"}),
    "GET /me/organisations": Rule(EVERYBODY),
    "POST /sessions/switch": Rule(EVERYBODY, {"org_id": ID}),
    "GET /sessions": Rule(EVERYBODY),
    "DELETE /sessions": Rule(EVERYBODY),
    "DELETE /sessions/{session_id}": Rule(EVERYBODY),
    "POST /password-resets": Rule(None, {"email": "x"}),
    "POST /password-resets/redeem": Rule(None, {"token": "x", "password": "x"}),
    "GET /applications": Rule(EVERYBODY),
    "POST /applications": Rule(EVERYBODY, {"name": "app"}),
    "GET /applications/{application_id}/keys": Rule(EVERYBODY),
    "PUT /applications/{application_id}/policy": Rule(EVERYBODY, {}),
    "POST /applications/{application_id}/keys": Rule(EVERYBODY, {}),
    "POST /keys/{credential_id}/rotate": Rule(EVERYBODY, {}),
    "DELETE /keys/{credential_id}": Rule(EVERYBODY),
    "GET /jobs": Rule(EVERYBODY),
    "GET /jobs/{job_id}": Rule(EVERYBODY),
    "POST /jobs/{job_id}/cancel": Rule(EVERYBODY),
    "POST /jobs/{job_id}/retry": Rule(EVERYBODY),
    "GET /webhooks": Rule(EVERYBODY),
    "POST /webhooks": Rule(EVERYBODY, {"application_id": ID, "url": "http://8.8.8.8/"}),
    "POST /webhooks/{endpoint_id}/rotate": Rule(EVERYBODY),
    "POST /webhooks/{endpoint_id}/enable": Rule(EVERYBODY),
    "DELETE /webhooks/{endpoint_id}": Rule(EVERYBODY),
    "GET /webhook-deliveries": Rule(EVERYBODY),
    "GET /webhook-deliveries/{delivery_id}": Rule(EVERYBODY),
    "POST /webhook-deliveries/{delivery_id}/resend": Rule(EVERYBODY),
    "GET /partner": Rule(EVERYBODY),
    "POST /partner": Rule(frozenset({OPERATOR, ADMIN}), REGISTRATION),
    "GET /partners": Rule(OPERATORS),
    "POST /partners/{org_id}/approve": Rule(OPERATORS),
    "POST /partners/{org_id}/reject": Rule(OPERATORS, REASON),
    "POST /partners/{org_id}/suspend": Rule(OPERATORS, REASON),
    "PUT /partners/{org_id}/networks": Rule(OPERATORS, {"networks": []}),
    "GET /services": Rule(PARTNERS | OPERATORS),
    "POST /services": Rule(PARTNERS, draft().model_dump(mode="json")),
    "POST /services/{service_id}/versions": Rule(PARTNERS, VERSION),
    "POST /services/{service_id}/versions/{version_id}/accept": Rule(PARTNERS),
    "PUT /services/{service_id}/versions/{version_id}/endpoint": Rule(PARTNERS, {"endpoint": "http://8.8.8.8"}),
    "PUT /services/{service_id}/versions/{version_id}/policy": Rule(PARTNERS, {}),
    "POST /services/{service_id}/versions/{version_id}/deprecate": Rule(PARTNERS, {}),
    "POST /services/{service_id}/versions/{version_id}/restore": Rule(PARTNERS),
    "PUT /services/{service_id}/policy": Rule(PARTNERS, {}),
    "POST /services/{service_id}/cache/purge": Rule(PARTNERS | OPERATORS),
    "POST /services/{service_id}/publish": Rule(PARTNERS),
    "POST /services/{service_id}/deprecate": Rule(PARTNERS, {"sunset_at": "2027-01-01T00:00:00Z"}),
    "POST /services/{service_id}/retire": Rule(PARTNERS),
    "POST /services/{service_id}/prices": Rule(PARTNERS, {"unit_price": "1"}),
    "POST /services/{service_id}/meters": Rule(PARTNERS, {"name": "calls", "aggregation": "count"}),
    "GET /services/{service_id}/meters": Rule(None),
    "GET /services/{service_id}/prices": Rule(None),
    "POST /rating/simulations": Rule(EVERYBODY, {"service_id": ID, "plan": "free"}),
    "POST /services/{service_id}/plans": Rule(PARTNERS | OPERATORS, {"code": "own", "name": "Own"}),
    "PATCH /services/{service_id}/plans/{code}": Rule(PARTNERS | OPERATORS, {"per_minute": 5}),
    "POST /services/{service_id}/suspend": Rule(OPERATORS, REASON),
    "POST /services/{service_id}/restore": Rule(OPERATORS),
    "POST /services/{service_id}/rollouts": Rule(PARTNERS | OPERATORS, {"candidate": "2"}),
    "GET /services/{service_id}/rollouts": Rule(PARTNERS | OPERATORS),
    "GET /rollouts/{rollout_id}": Rule(PARTNERS | OPERATORS),
    "PUT /rollouts/{rollout_id}/percent": Rule(PARTNERS | OPERATORS, {"percent": 5}),
    "POST /rollouts/{rollout_id}/pause": Rule(PARTNERS | OPERATORS),
    "POST /rollouts/{rollout_id}/resume": Rule(PARTNERS | OPERATORS),
    "POST /rollouts/{rollout_id}/promote": Rule(PARTNERS | OPERATORS),
    "POST /rollouts/{rollout_id}/rollback": Rule(PARTNERS | OPERATORS, {}),
    "POST /services/{service_id}/experiments": Rule(PARTNERS | OPERATORS, EXPERIMENT),
    "GET /services/{service_id}/experiments": Rule(PARTNERS | OPERATORS),
    "GET /experiments/{experiment_id}": Rule(PARTNERS | OPERATORS),
    "POST /experiments/{experiment_id}/withdraw": Rule(PARTNERS | OPERATORS),
    "POST /experiments/{experiment_id}/stop": Rule(PARTNERS | OPERATORS, REASON),
    "GET /subscriptions": Rule(EVERYBODY),
    "POST /subscriptions": Rule(EVERYBODY, {"application_id": ID, "service_id": ID}),
    "PATCH /subscriptions/{subscription_id}": Rule(EVERYBODY, {"plan": "free"}),
    "DELETE /subscriptions/{subscription_id}": Rule(EVERYBODY),
    "GET /usage": Rule(EVERYBODY),
    "GET /usage/hours": Rule(EVERYBODY),
    "GET /usage/calls": Rule(EVERYBODY),
    "GET /usage/calls.csv": Rule(EVERYBODY),
    "GET /usage/calls.jsonl": Rule(EVERYBODY),
    "GET /usage/live": Rule(EVERYBODY, query="?seconds=1"),
    "GET /usage/dashboard": Rule(EVERYBODY),
    "GET /usage/dashboard/provider": Rule(PARTNERS | OPERATORS),
    "GET /usage/dashboard/operator": Rule(OPERATORS),
    "GET /usage/calls/{request_id}": Rule(EVERYBODY),
    "GET /usage/provider": Rule(PARTNERS | OPERATORS),
    "GET /usage/shipping": Rule(OPERATORS),
    "POST /usage/shipping/{worker}/skip": Rule(OPERATORS, {"segment": 1}),
    "GET /usage/quarantine": Rule(OPERATORS),
    "POST /usage/quarantine/release": Rule(OPERATORS, {"ids": [ID]}),
    "GET /invoices": Rule(EVERYBODY),
    "GET /invoices/preview": Rule(EVERYBODY, query="?period=2026-11"),
    "GET /cost": Rule(EVERYBODY),
    "POST /invoices/runs": Rule(OPERATORS, PERIOD),
    "GET /invoices/language": Rule(EVERYBODY),
    "PUT /invoices/language": Rule(frozenset(Role) - {Role.PARTNER_DEVELOPER}, {"language": "ta"}),
    "GET /invoices/{invoice_id}": Rule(EVERYBODY),
    "GET /invoices/{invoice_id}.pdf": Rule(EVERYBODY),
    "GET /invoices/{invoice_id}.csv": Rule(EVERYBODY),
    "GET /invoices/{invoice_id}.json": Rule(EVERYBODY),
    "GET /invoices/{invoice_id}/document": Rule(EVERYBODY),
    "GET /invoices/{invoice_id}/lines": Rule(EVERYBODY),
    "GET /invoices/{invoice_id}/payments": Rule(EVERYBODY),
    "POST /invoices/{invoice_id}/void": Rule(OPERATORS, REASON),
    "POST /invoices/{invoice_id}/checkout": Rule(EVERYBODY, {"provider": "card"}),
    "GET /credit-notes": Rule(EVERYBODY),
    "POST /credit-notes": Rule(OPERATORS, CREDIT),
    "GET /credit-notes/{note_id}": Rule(EVERYBODY),
    "GET /credit-notes/{note_id}.pdf": Rule(EVERYBODY),
    "GET /credit-notes/{note_id}.csv": Rule(EVERYBODY),
    "GET /credit-notes/{note_id}.json": Rule(EVERYBODY),
    "GET /credit-notes/{note_id}/document": Rule(EVERYBODY),
    "GET /credit-notes/{note_id}/lines": Rule(EVERYBODY),
    "POST /debit-notes": Rule(OPERATORS, {**CREDIT, "items": [{"invoice_line": ID, "taxable": "1.00"}]}),
    "GET /usage/calls/{call_id}/portions": Rule(EVERYBODY),
    "POST /usage/calls/{call_id}/corrections": Rule(OPERATORS, REASON),
    "GET /payments": Rule(EVERYBODY),
    "POST /payments": Rule(OPERATORS, {"org_id": ID, "amount": "1.00", "reference": "UTR 1"}),
    "GET /payments/refused": Rule(OPERATORS),
    "POST /payments/refused": Rule(OPERATORS, {"provider": "card", "message_id": "msg_1", "note": "a test of theirs"}),
    "GET /payments/{payment_id}/returns": Rule(EVERYBODY),
    "POST /payments/{payment_id}/refunds": Rule(OPERATORS, {"amount": "1.00", "reference": "UTR 1"}),
    "POST /payments/{provider}/messages": Rule(None, {}),
    "POST /billing/runs": Rule(OPERATORS, PERIOD),
    "GET /billing/runs": Rule(OPERATORS),
    "GET /billing/runs/{period}": Rule(OPERATORS),
    "GET /invoice-lines/{line_id}/calls": Rule(EVERYBODY),
    "GET /wallet": Rule(EVERYBODY),
    "GET /wallet/movements": Rule(EVERYBODY),
    "POST /wallet/top-ups": Rule(OPERATORS, {"org": ID, "amount": "1", "key": "k"}),
    "POST /wallet/credits": Rule(OPERATORS, {"org": ID, "amount": "1", "key": "k"}),
    "PUT /wallet/mode": Rule(OPERATORS, {"org": ID, "mode": "prepaid"}),
    "GET /wallet/leases": Rule(OPERATORS),
    "DELETE /wallet/leases/{gateway}": Rule(OPERATORS),
    "GET /wallet/budgets": Rule(EVERYBODY),
    "PUT /wallet/budgets": Rule(EVERYBODY, {"amount": "5"}),
    "DELETE /wallet/budgets/{budget_id}": Rule(EVERYBODY),
    "GET /models": Rule(PARTNERS | OPERATORS),
    "POST /models": Rule(PARTNERS),
    "GET /models/keys": Rule(PARTNERS | OPERATORS),
    "POST /models/keys": Rule(PARTNERS, {"public_key": "AAAA"}),
    "DELETE /models/keys/{key_id}": Rule(PARTNERS),
    "GET /models/matches": Rule(EVERYBODY),
    "GET /models/{model_id}": Rule(PARTNERS | OPERATORS),
    "POST /models/{model_id}/versions/{version}/publish": Rule(PARTNERS),
    "POST /models/{model_id}/versions/{version}/retire": Rule(PARTNERS),
    "GET /settlements": Rule(frozenset({OPERATOR, ADMIN})),
    "POST /settlements/runs": Rule(OPERATORS, PERIOD),
    "GET /settlements/{settlement_id}": Rule(frozenset({OPERATOR, ADMIN})),
    "GET /settlement-lines/{line_id}/calls": Rule(MONEY),
    "GET /settlements/{settlement_id}/evidence": Rule(MONEY),
    "GET /settlements/{settlement_id}/payouts": Rule(MONEY),
    "GET /services/{service_id}/shares": Rule(MONEY),
    "POST /services/{service_id}/shares": Rule(OPERATORS, {"share": "0.8"}),
    "GET /balance": Rule(MONEY),
    "PUT /bank-account": Rule(MONEY, {"holder": "Vani", "number": "123456789", "ifsc": "SBIN0001234"}),
    "PUT /payout-terms/{org_id}": Rule(OPERATORS, {}),
    "GET /holds": Rule(MONEY),
    "POST /holds": Rule(OPERATORS, {"provider_org": ID, "amount": "1.00", "reason": "Because"}),
    "POST /holds/{hold_id}/release": Rule(OPERATORS),
    "GET /payouts": Rule(MONEY),
    "POST /payouts/runs": Rule(OPERATORS),
    "GET /payouts/files": Rule(OPERATORS),
    "POST /payouts/files": Rule(OPERATORS),
    "GET /payouts/files/{file_id}": Rule(OPERATORS),
    "POST /payouts/answers": Rule(OPERATORS),
    "GET /payouts/{payout_id}": Rule(MONEY),
    "POST /payouts/{payout_id}/approve": Rule(OPERATORS),
    "POST /payouts/{payout_id}/hold": Rule(OPERATORS, REASON),
    "POST /payouts/{payout_id}/release": Rule(OPERATORS),
    "POST /payouts/{payout_id}/paid": Rule(OPERATORS, {"bank_reference": "UTR"}),
    "POST /payouts/{payout_id}/failed": Rule(OPERATORS, REASON),
    "POST /payouts/{payout_id}/reverse": Rule(OPERATORS, REASON),
    "GET /disputes": Rule(EVERYBODY),
    "POST /disputes": Rule(EVERYBODY, query=f"?subject=invoice/{ID}"),
    "GET /disputes/{dispute_id}": Rule(EVERYBODY),
    "GET /disputes/{dispute_id}/differences": Rule(EVERYBODY),
    "POST /disputes/{dispute_id}/decide": Rule(OPERATORS, {"note": "Because"}),
    "POST /disputes/{dispute_id}/withdraw": Rule(EVERYBODY),
    "GET /ledger/trial-balance": Rule(OPERATORS),
    "GET /ledger/entries": Rule(EVERYBODY, query="?account=revenue"),
    "GET /ledger/operations": Rule(OPERATORS, query="?reference=invoice/1"),
    "GET /services/{service_id}/sla": Rule(None),
    "GET /services/{service_id}/sla/objectives": Rule(None),
    "POST /services/{service_id}/sla/objectives": Rule(PARTNERS | OPERATORS, {}),
    "GET /services/{service_id}/sla/probes": Rule(PARTNERS | OPERATORS),
    "GET /services/{service_id}/maintenance": Rule(None),
    "POST /services/{service_id}/maintenance": Rule(
        PARTNERS | OPERATORS, {"starts_at": "2026-12-05T00:00:00Z", "ends_at": "2026-12-05T01:00:00Z"}
    ),
    "POST /maintenance/{window_id}/cancel": Rule(PARTNERS | OPERATORS),
    "GET /sla/months": Rule(EVERYBODY),
    "GET /sla/months/{month_id}": Rule(EVERYBODY),
    "GET /sla/months/{month_id}/calls": Rule(EVERYBODY),
    "GET /sla/board": Rule(OPERATORS),
    "POST /sla/runs": Rule(OPERATORS, PERIOD),
    "GET /flags": Rule(OPERATORS),
    "GET /flags/{key}": Rule(OPERATORS),
    "PUT /flags/{key}": Rule(OPERATORS, {}),
    "DELETE /flags/{key}": Rule(OPERATORS),
    "PUT /flags/{key}/enabled": Rule(OPERATORS, {"enabled": False}),
    "PUT /flags/{key}/percent": Rule(OPERATORS, {"percent": 5}),
    "PUT /flags/{key}/overrides/{org_id}": Rule(OPERATORS, {"variant": "on"}),
    "DELETE /flags/{key}/overrides/{org_id}": Rule(OPERATORS),
    "GET /flags/{key}/history": Rule(OPERATORS),
    "GET /feedback": Rule(EVERYBODY),
    "GET /feedback/received": Rule(PARTNERS | OPERATORS),
    "GET /feedback/outcomes": Rule(PARTNERS | OPERATORS, query=f"?service_id={ID}"),
    "DELETE /feedback/{request_id}": Rule(EVERYBODY),
    "GET /content/published": Rule(None),
    "GET /content/published/{key}": Rule(None),
    "POST /content/reports": Rule(None, {"language": "hi", "page": "/", "phrase": "x"}),
    "GET /content/reports": Rule(OPERATORS),
    "POST /content/reports/{report_id}/close": Rule(OPERATORS, {"note": "Mended"}),
    "GET /content/pages": Rule(OPERATORS),
    "POST /content/pages": Rule(OPERATORS, {"key": "keys", "kind": "help"}),
    "GET /content/pages/{key}": Rule(OPERATORS),
    "PUT /content/pages/{key}/window": Rule(OPERATORS, {}),
    "GET /content/pages/{key}/{language}": Rule(OPERATORS),
    "PUT /content/pages/{key}/{language}": Rule(OPERATORS, {"title": "x", "body": "x"}),
    "POST /content/pages/{key}/{language}/translate": Rule(OPERATORS, {}),
    "POST /content/pages/{key}/{language}/review": Rule(OPERATORS, {}),
    "POST /content/pages/{key}/{language}/send-back": Rule(OPERATORS, REASON),
    "POST /content/pages/{key}/{language}/publish": Rule(OPERATORS, {}),
    "POST /content/pages/{key}/{language}/archive": Rule(OPERATORS, {"published": True}),
    "GET /content/suggestions": Rule(OPERATORS, query="?source=en&target=hi&text=a"),
    "GET /services/{service_id}/reviews": Rule(None),
    "GET /services/{service_id}/reviews/own": Rule(EVERYBODY),
    "PUT /services/{service_id}/reviews/own": Rule(EVERYBODY, {"stars": 4, "text": "Good."}),
    "DELETE /services/{service_id}/reviews/own": Rule(EVERYBODY),
    "GET /reviews": Rule(OPERATORS),
    "GET /reviews/received": Rule(PARTNERS | OPERATORS),
    "GET /reviews/{review_id}/history": Rule(EVERYBODY),
    "PUT /reviews/{review_id}/reply": Rule(PARTNERS | OPERATORS, {"text": "Thank you."}),
    "DELETE /reviews/{review_id}/reply": Rule(PARTNERS | OPERATORS),
    "POST /reviews/{review_id}/hide": Rule(OPERATORS, REASON),
    "POST /reviews/{review_id}/show": Rule(OPERATORS),
}
NO_SESSION = {
    "DELETE /sessions/current",  # it would end the session in the middle
}
LOCKED = {name: rule for name, rule in RULES.items() if rule.roles is not None}


def _address(route: str) -> tuple[str, str]:
    method, path = route.split(" ")
    while "{" in path:
        path = path[: path.index("{")] + ID + path[path.index("}") + 1 :]
    return method, path


def test_every_route_of_the_api_has_a_rule_here(control: Control) -> None:
    published = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, operations in control.app.openapi()["paths"].items()
        for method in operations
    }
    assert published == set(RULES)


async def test_without_a_session_everything_is_refused_but_what_is_open_to_all(control: Control) -> None:
    wrong = {}
    for route, rule in RULES.items():
        method, path = _address(route)
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic eDp5"}):
            answer = await control.ask(method, path + rule.query, rule.body, headers=headers)
            open_to_all = rule.roles is None and "nonsense" not in str(headers)
            if answer.status_code >= 500 or (not open_to_all and rule.roles and answer.status_code != 401):
                wrong[route] = answer.status_code
            if open_to_all and answer.status_code == 401 and route != "POST /sessions":
                wrong[route] = answer.status_code
    assert wrong == {}


async def _judge(control: Control, role: Role) -> dict[str, int]:
    """Return the routes whose answer does not fit the role."""
    token = await control.token((await control.cast())[role])
    wrong = {}
    for route, rule in LOCKED.items():
        if route in NO_SESSION:
            continue
        method, path = _address(route)
        answer = await control.ask(method, path + rule.query, rule.body, headers={"Authorization": f"Bearer {token}"})
        status = answer.status_code
        allowed = rule.roles is not None and role in rule.roles
        if status >= 500 or (status == 403) is allowed or status == 401:
            wrong[route] = status
    return wrong


async def test_a_platform_admin_may_what_the_table_says(control: Control) -> None:
    assert await _judge(control, OPERATOR) == {}


async def test_a_partner_admin_may_what_the_table_says(control: Control) -> None:
    assert await _judge(control, ADMIN) == {}


async def test_a_partner_developer_may_what_the_table_says(control: Control) -> None:
    assert await _judge(control, DEVELOPER) == {}


async def test_an_api_consumer_may_what_the_table_says(control: Control) -> None:
    assert await _judge(control, CONSUMER) == {}
