"""Measurements against a running service; results lie in benchmarks/results and docs."""
