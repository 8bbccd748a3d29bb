"""Providers as business partners: registration, the operator's decision, allowed networks."""
