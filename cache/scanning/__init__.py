"""A look at the disk: everything that anybody put into a cache, read and sorted, nothing followed out of it."""
