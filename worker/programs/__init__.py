"""Child processes, one job each: `python -m worker.programs.train JOB_DIR`."""
