"""What is on this machine: the home of the cache layout, catalog and integrity checks (nothing yet)."""
