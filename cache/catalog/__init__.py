"""The SQLite catalog, and what is listed with its help: an accelerator, rebuilt from the disk whenever it does not hold."""
