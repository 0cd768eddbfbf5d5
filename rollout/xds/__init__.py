"""Envoys elsewhere that ask for their routes over REST, and wait until there is news."""
