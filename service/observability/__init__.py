"""Structured logs, and the request id that they carry."""
