"""Help for tests: virtual time, scripted servers and faults."""
