"""The foundation of every program: launch, events, progress, ranks, failures."""
