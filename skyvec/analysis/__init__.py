"""Questions to latents, whatever they were made from: arrays in, arrays out."""
