"""Calls that must be covered before they are made: by a wallet, by budgets that are a hard stop."""
