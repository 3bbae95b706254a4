"""The request and response models of the API, one module a resource."""
