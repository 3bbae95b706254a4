"""Use cases of the service, one module per resource."""
