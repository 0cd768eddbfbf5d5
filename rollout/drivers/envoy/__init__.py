"""Traffic split by Envoys: their routes, counters, and the files or the REST discovery that they read."""
