"""The way to the providers: where a call goes, over which connection, and what happens when that fails."""

from haat.kernel import compiled

compiled.use("gateway/upstreams", __path__)
