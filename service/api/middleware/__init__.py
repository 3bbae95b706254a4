"""ASGI middleware: authentication, limits, security headers, the request log."""
