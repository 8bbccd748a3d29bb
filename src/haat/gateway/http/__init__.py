"""HTTP as the gateway speaks it to its clients: their connections, what headers mean, and the bytes of answers."""

from haat.kernel import compiled

compiled.use("gateway/http", __path__)
