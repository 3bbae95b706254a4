"""Checks and reports for developers; nothing of the product imports them."""
