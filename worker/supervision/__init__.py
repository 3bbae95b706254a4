"""One attempt at one job: process, lease, event shipping, retries, out-of-memory restarts."""
