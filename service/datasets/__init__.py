"""Conversion of uploaded files into canonical rows and statistics. Uses neither HTTP nor SQL."""
