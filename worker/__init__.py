"""Fairtune's data plane: what trains, scores and merges. Never imports fastapi."""
