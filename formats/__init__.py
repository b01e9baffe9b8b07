"""How a checkpoint lies on disk: one reader and writer per format, the encodings, and the value types they share."""
