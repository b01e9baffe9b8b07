"""The network side: what the Hugging Face Hub has, fetched into the cache, sent, searched."""
