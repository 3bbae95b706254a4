"""What every program stands on: launch, events, progress, ranks, failures."""
