"""Shared-prefix packing: the prompt's common prefix is computed once for each packed row."""
