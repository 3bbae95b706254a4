"""Responses: files with ranges, archives, event streams, content negotiation."""
