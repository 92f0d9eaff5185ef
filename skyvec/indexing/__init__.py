"""The index of a survey's latents on disk: built, appended to, opened, searched, checked."""
