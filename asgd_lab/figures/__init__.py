"""Figures over recorded runs: they read tables and summaries only, never a scenario, a task or a backend."""
