"""Which part of the traffic a user belongs to: the same in every process, after every restart, for every release."""

from __future__ import annotations

from hashlib import blake2b

BUCKETS = 10_000
"""A bucket is a hundredth of a percent."""


def bucket_of(salt: str, subject: str) -> int:
    """Return the bucket, 0 to 9,999, of a subject: a user, an application, whatever is to see the same thing again.

    The salt names what is being divided, so that those who come first in one division don't in the next.
    """
    digest = blake2b(f"{salt}\x1f{subject}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS
