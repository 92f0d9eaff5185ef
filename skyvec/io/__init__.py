"""Foreign files to the schema's types: one file a format; the first reader that matches reads."""

from skyvec.io import fits_lightcurves, images, tables

__all__ = ["READERS", "fits_lightcurves", "images", "tables"]

READERS = (images, fits_lightcurves, tables)
