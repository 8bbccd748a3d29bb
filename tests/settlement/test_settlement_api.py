"""The control API of settlement: a month's money from statement to bank, exact and in texts."""

from __future__ import annotations

from typing import Any

from haat.kernel.ids import new_id
from haat.kernel.permissions import PLATFORM

from .counting_house import ACCOUNT, MONTH, House, consumer, partner, signed_in

BECAUSE = {"reason": "Papers are missing"}


async def test_a_month_goes_from_statement_to_bank(app: Any, house: House) -> None:
    sale = await house.sold("100.00")
    org = sale.service.org
    house.close_month()
    await house.invoices.issue_all(PLATFORM, MONTH)
    async with signed_in(app, PLATFORM) as client:
        (settlement,) = (await client.post("/settlements/runs", json={"period": MONTH})).json()
        assert (settlement["withheld"], settlement["payable"]) == ("0.10", "69.90")
        run = (await client.post("/payouts/runs")).json()
        assert run["drafted"] == [] and run["refused"][0]["org_id"] == str(org)
    async with signed_in(app, partner(org)) as client:
        wrong = await client.put("/bank-account", json={**ACCOUNT, "ifsc": "no"})
        assert wrong.status_code == 422 and wrong.json()["errors"][0]["field"] == "ifsc"
        kept = (await client.put("/bank-account", json=ACCOUNT)).json()
        assert kept["last_four"] == "6789" and ACCOUNT["number"] not in str(kept)
        statement = (await client.get(f"/settlements/{settlement['id']}")).json()
        assert statement["withheld"][0] == {
            "name": "TDS",
            "section": "194-O",
            "base": "100.00",
            "rate": "0.00100",
            "amount": "0.10",
        }
        evidence = await client.get(f"/settlements/{settlement['id']}/evidence")
        assert evidence.headers["content-type"].startswith("text/csv") and len(evidence.text.splitlines()) == 2
        parquet = await client.get(f"/settlements/{settlement['id']}/evidence?form=parquet")
        assert parquet.content[-4:] == b"PAR1" and "attachment" in parquet.headers["content-disposition"]
    async with signed_in(app, PLATFORM) as client:
        (payout,) = (await client.post("/payouts/runs")).json()["drafted"]
        path = f"/payouts/{payout['id']}"
        assert (await client.post(f"{path}/hold", json=BECAUSE)).json()["status"] == "held"
        assert (await client.post(f"{path}/release")).json()["status"] == "draft"
        assert (await client.post(f"{path}/paid", json={"bank_reference": "UTR1"})).status_code == 409
        assert (await client.post(f"{path}/approve")).json()["account"] == "SBIN0001234 …6789"
        file = (await client.post("/payouts/files")).json()
        assert (file["payouts"], file["total"]) == (1, "69.90")
        assert (await client.post("/payouts/files")).json() is None
        text = await client.get(f"/payouts/files/{file['id']}")
        assert ACCOUNT["number"] in text.text and text.headers["cache-control"] == "no-store"
        assert [one["id"] for one in (await client.get("/payouts/files")).json()] == [file["id"]]
        assert (await client.post(f"{path}/failed", json=BECAUSE)).json()["status"] == "failed"
        assert (await client.post(f"{path}/approve")).status_code == 200
        await client.post("/payouts/files")
        paid = (await client.post(f"{path}/paid", json={"bank_reference": "UTR1"})).json()
        assert (paid["status"], paid["bank_reference"]) == ("paid", "UTR1")
    async with signed_in(app, partner(org)) as client:
        assert [one["id"] for one in (await client.get("/payouts?status=paid")).json()["items"]] == [payout["id"]]
        story = (await client.get(path)).json()
        assert story["rows"][0]["reference"] == settlement["id"] and story["history"][-1]["type"] == "payout.paid"
        assert (await client.get(f"/settlements/{settlement['id']}/payouts")).json()[0]["id"] == payout["id"]
        money = (await client.get("/balance")).json()
        assert (money["paid"], money["available"], money["terms"]["delay_days"]) == ("69.90", "0", 0)
    async with signed_in(app, PLATFORM) as client:
        heading = "payout_id,status,amount,bank_reference,reason"
        wrong = await client.post("/payouts/answers", content=f"{heading}\n{payout['id']},returned,69.91,,Closed\n")
        assert wrong.status_code == 422
        assert wrong.json()["errors"] == [{"field": "row 2", "message": "It says ₹69.91, and the payout is of ₹69.90."}]
        came_back = f"{heading}\n{payout['id']},returned,69.90,UTR1,Closed\n{new_id()},paid,1.00,U1,\n"
        assert (await client.post("/payouts/answers", content=came_back)).status_code == 422
        taken = (await client.post("/payouts/answers?skip_refused=true", content=came_back)).json()
        assert (taken["returned"], taken["known"], taken["refused"][0]["row"]) == ([payout["id"]], 0, 3)
        assert (await client.get(path)).json()["payout"]["status"] == "reversed"
        terms = {"minimum": "10.00", "delay_days": 3, "withholdings": {"TDS": "0.05"}, "stopped": "Asked for"}
        assert (await client.put(f"/payout-terms/{org}", json=terms)).json()["minimum"] == "10.00"
        assert (await client.put(f"/payout-terms/{org}", json={"withholdings": {"TDS": "5"}})).status_code == 422
        assert (await client.put(f"/payout-terms/{new_id()}", json={})).status_code == 404
        held = {"provider_org": str(org), "settlement_id": settlement["id"], **BECAUSE}
        hold = (await client.post("/holds", json=held)).json()
        assert hold["amount"] == "69.90" and len((await client.get("/holds")).json()) == 1
        assert (await client.post(f"/holds/{hold['id']}/release")).json()["released_at"]
    await house.check_sums()


async def test_an_invoice_is_contested_by_its_customer_and_decided(app: Any, house: House) -> None:
    sale = await house.settled("60.00", "40.00")
    (invoice,) = await house.bazaar.rows("SELECT id FROM invoices")
    calls = await house.bazaar.rows("SELECT id, characters FROM usage WHERE characters = 60")
    log = "".join(f'{{"request_id": "{one["id"]}", "quantity": {one["characters"]}}}\n' for one in calls)
    async with signed_in(app, consumer(sale.org)) as client:
        where = f"/disputes?subject=invoice/{invoice['id']}&form=jsonl&reason=Not%20ours"
        made = await client.post(where, content=log)
        assert made.status_code == 201 and (made.json()["status"], made.json()["only_ours"]) == ("open", 1)
        path = f"/disputes/{made.json()['id']}"
        assert (await client.post(where, content=log)).status_code == 409
        broken = await client.post(where.replace(str(invoice["id"]), str(new_id())), content="{")
        assert broken.status_code == 404
        story = (await client.get(path)).json()
        assert story["lines"][0]["quantity"] == "40.000000"
        assert (await client.get(f"{path}/differences")).json()["items"][0]["kind"] == "only_ours"
        assert len((await client.get("/disputes?status=open")).json()["items"]) == 1
        assert (await client.post(f"{path}/decide", json={"note": "Mine"})).status_code == 403
    async with signed_in(app, PLATFORM) as client:
        verdict = {"invoice_line_id": story["lines"][0]["invoice_line_id"], "credit": "0.001"}
        assert (await client.post(f"{path}/decide", json={"verdicts": [verdict], "note": "So"})).status_code == 422
        decided = (await client.post(f"{path}/decide", json={"note": "The calls are in the journal"})).json()
        assert decided["status"] == "decided"
        assert (await client.post(f"{path}/withdraw")).status_code == 409


async def test_a_listings_split_is_read_and_changed(app: Any, house: House) -> None:
    service = await house.bazaar.service(share="0.70")
    async with signed_in(app, PLATFORM) as client:
        house.clock.advance(seconds=1)
        made = await client.post(f"/services/{service.id}/shares", json={"share": "0.8"})
        assert made.status_code == 201 and made.json()[0]["share"] == "0.80000"
        past = {"share": "0.9", "effective_from": "2020-01-01T00:00:00Z"}
        assert (await client.post(f"/services/{service.id}/shares", json=past)).status_code == 422
    async with signed_in(app, partner(service.org)) as client:
        shares = (await client.get(f"/services/{service.id}/shares")).json()
        assert [one["share"] for one in shares] == ["0.80000", "0.70000"]
