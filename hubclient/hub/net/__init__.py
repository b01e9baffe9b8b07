"""The connection: huggingface_hub's session, with redirects, tokens, patience and errors of our own rules."""
