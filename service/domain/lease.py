"""The timing of leases."""

RENEWAL_SECONDS = 2.0
"""Between two renewals of a lease, at most: they also bring what users asked for."""
