"""Faults at every point of a job, and the harness that brings them about."""
