"""What a page may load (Content Security Policy): its own files, and pictures and sounds that stand in it."""

from __future__ import annotations


def _policy(media: str) -> str:
    return (
        f"default-src 'self'; img-src 'self' data:; media-src 'self' {media}; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'self'; object-src 'none'"
    )


USUAL = _policy("data:")
WITH_RECORDINGS = _policy("data: blob:")
"""For pages with a microphone: what was recorded is played before it is sent."""
