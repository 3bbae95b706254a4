"""Merging an adapter into its base model's weights, a weight at a time."""
