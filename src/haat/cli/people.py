"""Who takes part in the tour, as clients of the control API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from haat.bootstrap import SignIn


@dataclass(frozen=True, slots=True)
class Cast:
    """Who takes part, with their sign-ins."""

    operator: SignIn
    provider: SignIn
    developer: SignIn


class TourFailed(Exception):
    """A step did not go as it must; the sentence says which and what was answered."""


class Person:
    """A signed-in client of the control API."""

    def __init__(self, client: httpx.AsyncClient, sign_in: SignIn) -> None:
        self._client = client
        self._sign_in = sign_in
        self._token = ""

    async def sign_in(self, **account: Any) -> None:
        """Sign in; with ``account`` (what a sign-up needs) create the account the first time."""
        credentials = {"email": self._sign_in.email, "password": self._sign_in.password}
        response = await self._client.post("/api/v1/sessions", json=credentials)
        if response.status_code == 401 and account:
            response = await self._client.post("/api/v1/accounts", json={**credentials, **account})
        self._token = checked(response)["token"]

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Return the JSON answer; raise TourFailed for any refusal."""
        return checked(await self.try_(method, path, body, **query))

    async def send(self, path: str, content: bytes) -> Any:
        """Post bytes as they are and return the JSON answer; raise TourFailed for any refusal."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/octet-stream"}
        return checked(await self._client.post(f"/api/v1{path}", content=content, headers=headers))

    async def try_(self, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        """Return the answer, whatever it is."""
        return await self._client.request(
            method,
            f"/api/v1{path}",
            json=body,
            params={name: value for name, value in query.items() if value is not None},
            headers={"Authorization": f"Bearer {self._token}"},
        )


def checked(response: httpx.Response) -> Any:
    """Return an answer's JSON, None for one without; raise TourFailed for a refusal."""
    if response.is_success:
        return response.json() if response.content else None
    request = response.request
    raise TourFailed(f"{request.method} {request.url.path} answered {response.status_code}: {response.text[:500]}")
