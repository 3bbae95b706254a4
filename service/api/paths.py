"""Paths that both a route and the middleware use."""

LIVENESS = "/healthz"
READINESS = "/readyz"
METRICS = "/metrics"
DATASETS = "/v1/datasets"
ADAPTERS = "/v1/adapters"
KEYS = "/v1/keys"
UPLOADS = frozenset({DATASETS, ADAPTERS})
"""Paths whose POST takes files."""
PAGES = frozenset({"/docs", "/redoc"})
"""Our own HTML pages, without any user input."""
