"""Terms and rules of the service; imports only pydantic and the standard library."""
