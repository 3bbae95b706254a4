"""What can be asked of the service, one module a subject."""
