"""What keeps a call from being made: rates, quotas and concurrency, and where they are counted."""

from haat.kernel import compiled

compiled.use("gateway/limits", __path__)
