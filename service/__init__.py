"""Fairtune's control plane: everything that needs no GPU. Never imports torch."""

__version__ = "0.1.0"
