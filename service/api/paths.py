"""Paths that both a route and the middleware use."""

LIVENESS = "/healthz"
READINESS = "/readyz"
METRICS = "/metrics"
DATASETS = "/v1/datasets"
KEYS = "/v1/keys"
PAGES = frozenset({"/docs", "/redoc"})
"""Our own HTML pages, without any user input."""
