"""The bundled sample dataset: short made-up posts about three groups, for trying the service out."""
