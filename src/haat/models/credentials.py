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


def opens(keyring: Keyring, provider: str, authorization: str) -> bool:
    """Tell whether an ``Authorization`` header opens the services and models of a provider."""
    given = authorization.encode("utf-8", "replace")
    known = (models_token(keyring), provider_token(keyring, provider))
    return any(hmac.compare_digest(given, f"Bearer {token}".encode()) for token in known)


def endpoint_of(models_address: str, provider: str, name: str, version: str) -> str:
    """Return the address at which the models process serves ``name@version``; listings have no @ in addresses."""
    return f"{models_address}/{provider}/{name}%40{version}"
