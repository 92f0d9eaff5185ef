"""Short vectors for everything a sky survey measures: search, oddities, groups, maps."""

__version__ = "0.1.0"
