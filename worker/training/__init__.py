"""Training of a LoRA adapter: loop, loss, checkpoints, choice of the best weights."""
