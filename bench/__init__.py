"""What the platform costs, measured: scripts that start everything they need and stop it again.

`python -m bench.gateway` is `make bench-gateway`, `python -m bench.soak` is `make soak`.
"""
