"""The plans that ship, those that are stored, and how many requests they will need."""
