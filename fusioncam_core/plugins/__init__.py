"""Hooks, the plugins that answer them, and models by name."""
