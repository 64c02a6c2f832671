"""Artifacts as files on this machine's disk, and the deltas between them."""
