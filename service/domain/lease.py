"""The timing of leases."""

RENEWAL_SECONDS = 2.0
"""Maximum time between two renewals of a lease; each also fetches users' requests."""
