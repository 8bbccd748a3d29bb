"""What the gateway knows of the market: who may call what, how it gets here, and how it is kept on disk."""

from haat.kernel import compiled

compiled.use("gateway/market", __path__)
