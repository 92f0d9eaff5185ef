"""Nearest neighbours among vectors: exact, certified, quantised, and as a graph."""
