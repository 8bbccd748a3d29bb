"""Feature flags: switches and variants that the operator turns while everything runs."""
