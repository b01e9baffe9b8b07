"""How something gets into a cache: in one step each, through no link, beside removals that run."""
