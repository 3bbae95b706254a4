"""Tests against the real thing: databases, brokers, workers, models, browsers."""
