"""A Hub for others to read from: what huggingface.co answers to its clients, over any set of repositories."""
