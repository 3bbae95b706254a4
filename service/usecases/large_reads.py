"""The limit of reads whose cost grows with a run's length or a dataset's size."""

from service.ops.capacity_limiter import CapacityLimiter

# They must not take the threads of all other requests.
LARGE_READS = CapacityLimiter("large reads", at_once=4, waiting=8, seconds=30)
