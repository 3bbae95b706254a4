"""Uploaded files in, canonical rows and statistics out. Knows neither HTTP nor SQL."""
