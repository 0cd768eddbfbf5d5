"""What both arms did, from each source. Add a source of evidence here."""
