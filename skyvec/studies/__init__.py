"""Questions that need the whole river at once."""
