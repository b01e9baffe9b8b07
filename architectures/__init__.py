"""What a model is: one small, constant-only module per family, and the language they are written in."""
