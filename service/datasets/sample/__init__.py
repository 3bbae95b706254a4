"""The bundled sample dataset: short made-up posts about three groups."""
