"""What may go from a cache, and how it goes so that nothing is ever half-visible."""
