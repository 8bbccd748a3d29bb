"""What opens the models process: one credential for the platform's own services, one a provider for its models.

A provider's listing carries its own credential to whatever endpoint the provider gives it, so it must open nothing
but the provider's own models.
"""

from __future__ import annotations

import hmac

from haat.infra.keyring import Keyring


def models_token(keyring: Keyring) -> str:
    """Return the token of the built-in services."""
    return keyring.derive("models-token").hex()


def provider_token(keyring: Keyring, provider: str) -> str:
    """Return the token of a provider's models."""
    return keyring.derive(f"models-token/{provider}").hex()


class Credentials:
    """What the models process lets in. Tokens are derived once a provider."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._bearers: dict[str, tuple[bytes, ...]] = {}

    def opens(self, provider: str, authorization: bytes) -> bool:
        """Tell whether an ``Authorization`` header opens the models of a provider that has some."""
        bearers = self._bearers.get(provider)
        if bearers is None:
            tokens = models_token(self._keyring), provider_token(self._keyring, provider)
            bearers = self._bearers[provider] = tuple(f"Bearer {token}".encode() for token in tokens)
        return any(hmac.compare_digest(authorization, bearer) for bearer in bearers)


def endpoint_of(models_address: str, provider: str, name: str, version: str) -> str:
    """Return the address at which the models process serves ``name@version``; listings have no @ in addresses."""
    return f"{models_address}/{provider}/{name}%40{version}"
