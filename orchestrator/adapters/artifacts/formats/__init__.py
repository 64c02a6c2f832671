"""What a file says of itself: its format by its first bytes, then name, version and hardware."""
