"""The control API, as `haat models` speaks to it: as the user whose token it is given."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from haat.settings import load_settings

Command = TypeVar("Command", bound=Callable[..., Any])
_CHUNK = 256 * 1024
_SECONDS = 30.0
_UPLOAD_SECONDS = 600.0


class Api:
    """Calls of the control API; what it refuses becomes the command's error."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url.rstrip("/"), token

    def send(self, method: str, path: str, body: Any = None, *, content: Any = None, seconds: float = _SECONDS) -> Any:
        """Return the answer's document, None for one without; raise ClickException."""
        headers = {"Authorization": f"Bearer {self._token}"}
        if content is not None:
            headers["Content-Type"] = "application/octet-stream"
        try:
            answer = httpx.request(
                method, f"{self._url}/api/v1{path}", json=body, content=content, headers=headers, timeout=seconds
            )
        except httpx.HTTPError as error:
            raise click.ClickException(
                f"{self._url} does not answer ({type(error).__name__}): give the portal's address with --url."
            ) from error
        if answer.status_code >= 400:
            raise click.ClickException(_sentence(answer))
        return answer.json() if answer.content else None

    def register_key(self, public: Ed25519PublicKey, name: str) -> None:
        """Register a key that signs bundles."""
        encoded = base64.b64encode(public.public_bytes_raw()).decode()
        self.send("POST", "/models/keys", {"public_key": encoded, "name": name})

    def require_provider(self, slug: str) -> None:
        """Raise ClickException unless the token acts for this provider."""
        partner = self.send("GET", "/partner")
        present = partner.get("slug") if partner else None
        if present != slug:
            raise click.ClickException(f"The token acts for {present or 'no provider'}, not for {slug}.")

    def upload(self, bundle: Path, *, quiet: bool = False) -> dict[str, Any]:
        """Send a bundle, with a progress bar, and return the version that it has become."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
            task = progress.add_task(bundle.name, total=bundle.stat().st_size)

            def chunks() -> Iterator[bytes]:
                with bundle.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        yield chunk
                        progress.advance(task, len(chunk))

            version: dict[str, Any] = self.send("POST", "/models", content=chunks(), seconds=_UPLOAD_SECONDS)
        return version


def _sentence(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        lines = [str(problem["detail"])]
    except (ValueError, KeyError, TypeError):
        return f"The platform answered {answer.status_code}."
    lines += [f"  {one['field']}: {one['message']}" for one in problem.get("errors") or []]
    lines += [f"  {'ok' if one['ok'] else 'no'}  {one['name']}: {one['detail']}" for one in problem.get("steps") or []]
    return "\n".join(lines)


def api_options(command: Command) -> Command:
    """Give a command ``--url`` and ``--token``, and hand it the `Api` that they make."""

    def run(*arguments: Any, url: str | None, token: str, **keywords: Any) -> Any:
        return command(*arguments, api=Api(url or load_settings().portal_address, token), **keywords)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # click's own place
    run = click.option(
        "--token", envvar="HAAT_TOKEN", required=True, help="Token of your session (HAAT_TOKEN): POST /api/v1/sessions."
    )(run)
    run = click.option("--url", default=None, help="Address of the portal, if it isn't this machine's.")(run)
    return run  # type: ignore[return-value]  # the same command, minus what it is given
