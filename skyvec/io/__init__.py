"""Foreign files to the schema's types: one file a format; the first reader that matches reads."""

from skyvec.io import avro_alerts, fits_lightcurves, images, stamps, tables

__all__ = ["READERS", "avro_alerts", "fits_lightcurves", "images", "stamps", "tables"]

READERS = (avro_alerts, stamps, images, fits_lightcurves, tables)
