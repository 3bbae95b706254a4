"""Tables and every query; the only place that knows SQL."""
