"""Training: simulated anatomy, and loops that turn it into weights."""
