"""Usage: what was called, from the gateway's journal to the store that bills and statistics are made of."""

from haat.kernel import compiled

compiled.use("usage", __path__)
