"""Bias reports and comparisons, built from stored predictions."""
