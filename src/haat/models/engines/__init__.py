"""Where models run: workers of this machine, or a cluster of Ray's. Both are an `Engine`."""
