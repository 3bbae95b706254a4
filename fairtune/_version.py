"""Version of the client; that of the service is the same."""

__version__ = "0.1.0"
