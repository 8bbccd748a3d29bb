"""The OpenAI-compatible door."""

from haat.kernel import compiled

compiled.use("gateway/doors/openai", __path__)
