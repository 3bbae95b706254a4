"""Base models: locating, loading, quantizing and adapting them."""
