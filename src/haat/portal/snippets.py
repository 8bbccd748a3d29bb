"""First calls to copy: the version's own sample in curl, Python, our Python client and JavaScript."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from haat.catalog.drafts import SampleCall
from haat.catalog.model import Listing, Version
from haat.language.messages import _

KEY = "HAAT_KEY"


@dataclass(frozen=True, slots=True)
class Snippet:
    name: str
    title: str
    text: str


def call_url(gateway: str, listing: Listing, sample: SampleCall) -> str:
    """Return the gateway's address of a sample call."""
    return f"{gateway}/v1/services/{listing.path}{sample.path}"


def _short(body: object) -> object:
    """Return a body whose long texts (encoded sound and pictures) are cut: a snippet is for reading."""
    if isinstance(body, dict):
        return {name: _short(value) for name, value in body.items()}
    if isinstance(body, list):
        return [_short(value) for value in body]
    return body[:24] + "…" if isinstance(body, str) and len(body) > 300 else body


def _layout(body: object) -> str:
    """Write JSON with one member of the outermost object a line: short, and still to be read."""
    short = _short(body)
    if not isinstance(short, dict) or not short:
        return json.dumps(short, ensure_ascii=False)
    lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in short.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _sample(version: Version) -> tuple[SampleCall, str]:
    sample = SampleCall.model_validate(version.sample)
    return sample, "" if sample.body is None else _layout(sample.body)


def curl(gateway: str, listing: Listing, version: Version) -> str:
    sample, body = _sample(version)
    lines = [
        f"curl {'' if sample.method == 'POST' and body else f'-X {sample.method} '}{call_url(gateway, listing, sample)}"
    ]
    lines.append(f'  -H "Authorization: Bearer ${KEY}"')
    if body:
        lines += ["  -H 'Content-Type: application/json'", f"  --data {shlex.quote(body)}"]
    return " \\\n".join(lines)


def python(gateway: str, listing: Listing, version: Version) -> str:
    sample, body = _sample(version)
    literal = repr(json.loads(body)) if body else ""
    return "\n".join(
        [
            "import os",
            "",
            "import httpx",
            "",
            "answer = httpx.request(",
            f'    "{sample.method}",',
            f'    "{call_url(gateway, listing, sample)}",',
            f'    headers={{"Authorization": f"Bearer {{os.environ[\'{KEY}\']}}"}},',
            *([f"    json={literal},"] if body else []),
            ")",
            "answer.raise_for_status()",
            "print(answer.json())",
        ]
    )


def client(gateway: str, listing: Listing, version: Version) -> str:
    """Return the call with `haat_client`, which is installed with this platform's package."""
    sample, body = _sample(version)
    given = json.loads(body) if body else None
    first = f'    done = market.services.request("{listing.path}", "{sample.path}", method="{sample.method}"'
    call, shown = [f"{first}, json={given!r})" if body else f"{first})"], "done.data"
    if version.dialect == "task" and isinstance(given, dict) and sample.path == "/invoke":
        options = f"        {given['config']!r}," if given.get("config") else ""
        call = ["    done = market.services.invoke(", f'        "{listing.path}",', f"        {given['input']!r},"]
        call, shown = [*call, *([options] if options else []), "    )"], "done.output"
    return "\n".join(
        [
            "from haat_client import Haat",
            "",
            f'with Haat(base_url="{gateway}") as market:  # {_("the key is in %(name)s", name=KEY)}',
            *call,
            f"    print({shown}, done.units, done.charge)",
        ]
    )


def javascript(gateway: str, listing: Listing, version: Version) -> str:
    sample, body = _sample(version)
    return "\n".join(
        [
            f'const answer = await fetch("{call_url(gateway, listing, sample)}", {{',
            f'  method: "{sample.method}",',
            "  headers: {",
            f"    Authorization: `Bearer ${{process.env.{KEY}}}`,",
            *(['    "Content-Type": "application/json",'] if body else []),
            "  },",
            *([f"  body: JSON.stringify({body.replace(chr(10), chr(10) + '  ')}),"] if body else []),
            "});",
            "console.log(await answer.json());",
        ]
    )


def all_of(gateway: str, listing: Listing, version: Version, key: str = "") -> list[Snippet]:
    """Return the same call in each language of the tabs.

    ``key`` says in a comment which key belongs into the variable; the key itself is never known here.
    """
    written = [
        ("curl", "curl", "#", curl(gateway, listing, version)),
        ("python", "Python", "#", python(gateway, listing, version)),
        ("client", "Python, haat_client", "#", client(gateway, listing, version)),
        ("javascript", "JavaScript", "//", javascript(gateway, listing, version)),
    ]
    note = f"{KEY}: {' '.join(key.split())}"
    return [
        Snippet(name, title, f"{comment} {note}\n{text}" if key else text) for name, title, comment, text in written
    ]
