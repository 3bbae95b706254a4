"""How answers leave the API: files with ranges, archives, event streams, content negotiation."""
