"""Textbook control charts: which points are out of the ordinary, and how often would chance say so? PURE."""
