"""What answers calls of test keys in the provider's place: free, the same each time, and nobody's work.

A call of a test key goes through everything that a live one goes through, on a route of its own whose last
step is `haat.gateway.simulator.step`. No connection leads from there to a provider.
"""
