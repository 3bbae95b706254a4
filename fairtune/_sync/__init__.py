"""The synchronous client, generated from fairtune/_async; do not edit."""
