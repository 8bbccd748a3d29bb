"""The data plane: what happens between a developer's request and a provider's answer."""

from haat.kernel import compiled

compiled.use("gateway", __path__)
