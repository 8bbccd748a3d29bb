"""Plugins that come with the house. They use nothing but what `haat.plugins.api` gives to everybody."""
