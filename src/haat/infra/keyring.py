"""The platform's secrets: one master key, and everything else derived from it.

The master key is 32 bytes in ``data_dir/secrets/master.key`` (mode 0600, made on first use) or
base64 in ``HAAT_MASTER_KEY``. Losing it loses every stored provider credential and API key.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from haat.settings import Settings

KEY_BYTES = 32


class BadMasterKey(ValueError):
    """The master key is not 32 bytes, or not the base64 of them."""


def keyring_of(settings: Settings) -> Keyring:
    """Return the keyring of a platform's settings, making its master key on first use."""
    return Keyring.load(settings.data_dir, settings.master_key.get_secret_value() if settings.master_key else None)


class Keyring:
    """Derives keys by purpose, hashes API keys and encrypts what providers entrust to us."""

    def __init__(self, master: bytes) -> None:
        if len(master) != KEY_BYTES:
            raise BadMasterKey(
                f"The master key has {len(master)} bytes instead of {KEY_BYTES}: bring the right one back."
            )
        self._master = master
        self.key_hash_key = self.derive("api-key-hash")
        self._cipher = AESGCM(self.derive("provider-credentials"))

    @classmethod
    def load(cls, data_dir: Path, given: str | None = None) -> Keyring:
        """Read the master key, or make it; two processes that start at once agree on one."""
        if given:
            try:
                return cls(base64.b64decode(given, validate=True))
            except binascii.Error as error:
                raise BadMasterKey(f"The master key in HAAT_MASTER_KEY is not base64 ({error}).") from error
        path = data_dir / "secrets" / "master.key"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            descriptor, fresh = tempfile.mkstemp(prefix="master.key.", dir=path.parent)  # mode 0600
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was first: its key counts
                os.link(fresh, path)
            Path(fresh).unlink()
        return cls(path.read_bytes())

    def derive(self, purpose: str) -> bytes:
        """Return the 32-byte key for one purpose."""
        return hmac.digest(self._master, purpose.encode(), "sha256")

    def role_password(self, role: str) -> str:
        """Return the password of one of our PostgreSQL roles."""
        return self.derive(f"postgres-role/{role}").hex()

    def hash_key(self, key: str) -> bytes:
        """Return the keyed hash under which an API key or a session token is stored."""
        return hashlib.blake2b(key.encode(), key=self.key_hash_key, digest_size=32).digest()

    def encrypt(self, plaintext: str, context: str) -> bytes:
        """Encrypt with AES-256-GCM; ``context`` (such as a row's id) must be given again to decrypt."""
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, plaintext.encode(), context.encode())

    def decrypt(self, ciphertext: bytes, context: str) -> str:
        """Decrypt what `encrypt` made; raise cryptography's InvalidTag for anything else."""
        return self._cipher.decrypt(ciphertext[:12], ciphertext[12:], context.encode()).decode()
