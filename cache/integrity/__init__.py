"""Are the bytes what they should be? Verified offline, and mended from copies on this machine."""
