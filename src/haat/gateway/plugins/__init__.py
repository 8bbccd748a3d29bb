"""Plugins in the gateway: where they take part in a call, and how they come and go while it runs."""
