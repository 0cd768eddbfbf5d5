"""JSON for rollouts, plans, waves, mirrored pairs, and the judge alone."""
