"""Budgets: which masks are run, and what the others would score."""
