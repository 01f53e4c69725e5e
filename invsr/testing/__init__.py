"""For tests, yours and ours: phantoms, simulated scans, figures of merit."""
