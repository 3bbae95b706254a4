"""Benchmarks; their results are in benchmarks/results and docs/performance.md."""
