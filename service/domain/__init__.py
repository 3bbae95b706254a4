"""What the words mean; imports only pydantic and the standard library."""
