"""From a base model and rows to an adapter."""
