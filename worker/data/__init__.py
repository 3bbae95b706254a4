"""Rows of a dataset as token ids."""
