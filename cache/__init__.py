"""What is on this machine: the Hugging Face cache, read and looked after without a network."""
