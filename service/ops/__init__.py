"""Running a process: start-up, readiness, container health, capacity, Prometheus metrics."""
