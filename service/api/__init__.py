"""The HTTP API: FastAPI application, routes, problem+json, event streams."""
