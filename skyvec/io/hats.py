"""HATS catalogues: how a survey's tables leave for LSDB, and how others' come in, by partition.

A HATS catalogue is a folder of Parquet files, one a HEALPix cell of the sky (Caplar et al. 2025,
arXiv 2501.02103). The margin cache beside it repeats, for each cell, the rows just outside its
border, so that a cross-match loses nothing there. Needs the extra ``survey`` (lsdb).
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skyvec import sky

ROWS_PER_PARTITION = 500_000
HISTOGRAM_ORDER = 8
SPATIAL_INDEX = "_healpix_29"
MAX_ORDER = 29

Tables = Callable[[], Iterable[pa.Table]]
Cell = tuple[int, int]
"""Order and number of a nested HEALPix cell."""


def matches(path: Path) -> bool:
    """Say whether a folder is a HATS catalogue or a collection of them."""
    return any(
        (path / name).exists()
        for name in ("hats.properties", "collection.properties", "properties")
    )


def partition_files(path: Path) -> list[Path]:
    """The Parquet files of a catalogue's partitions, in the order of the sky; never its margin.

    Args:
        path: Folder of the catalogue or of its collection.

    Raises:
        ValueError: It is a margin cache or an index, which is no catalogue of objects.
        ModuleNotFoundError: The extra ``survey`` is not installed.
    """
    import hats

    opened = hats.read_hats(path)
    catalog = getattr(opened, "main_catalog", opened)
    kind = str(catalog.catalog_info.catalog_type)
    if kind not in ("object", "source"):
        raise ValueError(
            f"{path} is a HATS {kind}, not a catalogue of objects; name the main catalogue or its "
            "collection"
        )
    base, suffix = Path(str(catalog.catalog_base_dir)), catalog.catalog_info.npix_suffix
    files: list[Path] = []
    for pixel in catalog.get_healpix_pixels():
        place = Path(str(hats.io.pixel_catalog_file(base, pixel, npix_suffix=suffix)))
        files += sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    return files


def read_partitions(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Read a HATS catalogue one partition after the other, in the order of the sky.

    Args:
        path: Folder of the catalogue or of its collection.
        columns: Names to read; all by default.
    """
    for file in partition_files(path):
        yield pq.read_table(file, columns=columns)


def write_catalog(
    folder: Path,
    tables: Tables,
    *,
    name: str,
    margin_arcsec: float = 10.0,
    rows_per_partition: int = ROWS_PER_PARTITION,
) -> int:
    """Write a HATS collection: a catalogue and its margin cache, whole or not at all.

    The tables are walked through twice: once to count rows on the sky, once to hand each row to
    its cell; never more than one table and one partition are in memory.

    Args:
        folder: Where the collection shall stand; must not exist.
        tables: Gives, each time it is called, the same tables with columns ``ra`` and ``dec``
            (ICRS, deg).
        name: Of the catalogue.
        margin_arcsec: Width of the margin cache [arcsec], > 0.
        rows_per_partition: No cell holds more, unless its rows share one place.

    Returns:
        Rows that were left out because they have no position.

    Raises:
        FileExistsError: The folder is there already.
        ValueError: No row has a position, or the margin is not > 0.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; choose another folder or remove it")
    if not margin_arcsec > 0:
        raise ValueError(f"margin_arcsec must be > 0, not {margin_arcsec}")
    building = folder.parent / f".writing-{folder.name}"
    shutil.rmtree(building, ignore_errors=True)
    try:
        left_out = _build(building, tables, name, margin_arcsec, rows_per_partition)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return left_out


def _build(
    building: Path, tables: Tables, name: str, margin_arcsec: float, rows_per_partition: int
) -> int:
    from hats.catalog.dataset.collection_properties import CollectionProperties

    histogram, left_out = _count_on_the_sky(tables())
    if not histogram.any():
        raise ValueError("no row has a position; a HATS catalogue needs ra and dec")
    cells = _partition(histogram, rows_per_partition)
    main, margin = building / name, building / f"{name}_{margin_arcsec:g}arcs"
    _route(main, tables(), _owner(cells))
    _finish(main, name, "object", histogram)
    _route(margin, tables(), _neighbours(cells, margin_arcsec))
    _finish(margin, margin.name, "margin", None, primary=name, margin_arcsec=margin_arcsec)
    CollectionProperties(
        obs_collection=name,
        hats_primary_table_url=name,
        all_margins=[margin.name],
        default_margin=margin.name,
    ).to_properties_file(building)
    return left_out


def _cells(table: pa.Table) -> np.ndarray:
    """Finest HEALPix cell of each row, -1 without a position."""
    ra, dec = (table[c].cast(pa.float64()).to_numpy(zero_copy_only=False) for c in ("ra", "dec"))
    return sky.healpix_cell(ra, dec, order=MAX_ORDER)


def _count_on_the_sky(tables: Iterable[pa.Table]) -> tuple[np.ndarray, int]:
    histogram = np.zeros(12 * 4**HISTOGRAM_ORDER, np.int64)
    left_out = 0
    for table in tables:
        cells = _cells(table)
        left_out += int((cells < 0).sum())
        coarse = cells[cells >= 0] >> 2 * (MAX_ORDER - HISTOGRAM_ORDER)
        histogram += np.bincount(coarse, minlength=len(histogram))
    return histogram, left_out


def _partition(histogram: np.ndarray, most: int) -> list[Cell]:
    """The coarsest cells of at most ``most`` rows; a cell at the finest order may hold more."""
    sums = [histogram]
    while len(sums[0]) > 12:
        sums.insert(0, sums[0].reshape(-1, 4).sum(axis=1))
    cells: list[Cell] = []
    open_cells = np.arange(12)
    for order, count in enumerate(sums):
        here = open_cells[count[open_cells] > 0]
        done = (count[here] <= most) | (order == HISTOGRAM_ORDER)
        cells += [(order, int(cell)) for cell in here[done]]
        open_cells = (here[~done][:, None] * 4 + np.arange(4)).ravel()
    return cells


Assign = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, list[Cell]]]
"""Finest cells of rows -> (rows, index of the partition of each), and the partitions."""


def _owner(cells: list[Cell]) -> Assign:
    shift = np.array([2 * (MAX_ORDER - order) for order, _ in cells])
    first = np.array([cell for _, cell in cells]) << shift
    order = np.argsort(first)
    first, rank = first[order], order

    def assign(finest: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Cell]]:
        rows = np.flatnonzero(finest >= 0)
        return rows, rank[np.searchsorted(first, finest[rows], side="right") - 1], cells

    return assign


def _neighbours(cells: list[Cell], margin_arcsec: float) -> Assign:
    import hats.pixel_math.healpix_shim as healpix
    from hats.pixel_math import HealpixPixel, get_margin
    from hats.pixel_tree.negative_tree import compute_negative_tree_pixels
    from hats.pixel_tree.pixel_tree import PixelTree

    pixels = [HealpixPixel(order, cell) for order, cell in cells]
    empty = compute_negative_tree_pixels(PixelTree.from_healpix(pixels))
    everywhere = cells + [(int(pixel.order), int(pixel.pixel)) for pixel in empty]
    finest_order = max(order for order, _ in everywhere)
    margin_order = max(int(healpix.margin2order(margin_arcsec / 60.0)), finest_order + 1)
    if margin_arcsec > healpix.order2mindist(margin_order) * 60:
        raise ValueError(
            f"a margin of {margin_arcsec} arcsec is wider than half a partition of order "
            f"{finest_order}; choose a narrower margin or more rows_per_partition"
        )
    borders = [get_margin(order, cell, margin_order - order) for order, cell in everywhere]
    owner = np.repeat(np.arange(len(everywhere)), [len(b) for b in borders])
    border = np.array([cell for cells_ in borders for cell in cells_])
    by_cell = np.argsort(border, kind="stable")
    border, owner = border[by_cell], owner[by_cell]

    def assign(finest: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Cell]]:
        place = np.where(finest >= 0, finest >> 2 * (MAX_ORDER - margin_order), -1)
        low, high = (np.searchsorted(border, place, side=side) for side in ("left", "right"))
        rows = np.repeat(np.arange(len(finest)), high - low)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(high - low) - (high - low), high - low)
        return rows, owner[low[rows] + within], everywhere

    return assign


def _route(base: Path, tables: Iterable[pa.Table], assign: Assign) -> None:
    """Hand each row to its cell's folder of pieces, then sort each cell's rows along the sky."""
    pieces = base / "pieces"
    pieces.mkdir(parents=True)
    schema = None
    for number, table in enumerate(tables):
        finest = _cells(table)
        indexed = table.add_column(0, SPATIAL_INDEX, pa.array(finest))
        schema = schema or indexed.schema
        rows, partition, cells = assign(finest)
        for index in np.unique(partition):
            order, cell = cells[index]
            folder = pieces / f"{order}-{cell}"
            folder.mkdir(exist_ok=True)
            pq.write_table(
                indexed.take(rows[partition == index]), folder / f"{number:06d}.parquet"
            )
    for folder in sorted(pieces.iterdir()):
        order, cell = map(int, folder.name.split("-"))
        whole = pa.concat_tables(
            [pq.read_table(piece) for piece in sorted(folder.iterdir())],
            promote_options="permissive",
        )
        target = base / "dataset" / f"Norder={order}" / f"Dir={cell // 10000 * 10000}"
        target.mkdir(parents=True, exist_ok=True)
        ordered = whole.take(pc.sort_indices(whole, [(SPATIAL_INDEX, "ascending")]))
        pq.write_table(ordered, target / f"Npix={cell}.parquet", compression="zstd")
    shutil.rmtree(pieces)
    if schema is not None:
        (base / "dataset").mkdir(exist_ok=True)
        pq.write_metadata(schema, base / "dataset" / "_common_metadata")


def _finish(
    base: Path,
    name: str,
    kind: str,
    histogram: np.ndarray | None,
    *,
    primary: str | None = None,
    margin_arcsec: float | None = None,
) -> None:
    """Write what describes the partitions: metadata, partition list, sky map, properties."""
    from hats.catalog import PartitionInfo, TableProperties
    from hats.io import write_parquet_metadata
    from hats.io.skymap import write_skymap
    from hats.pixel_math import HealpixPixel

    files = sorted((base / "dataset").glob("Norder=*/Dir=*/Npix=*.parquet"))
    pixels = [
        HealpixPixel(int(f.parts[-3].split("=")[1]), int(f.stem.split("=")[1])) for f in files
    ]
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    if files:
        write_parquet_metadata(base)
    PartitionInfo(pixels).write_to_file(catalog_path=base)
    if histogram is not None:
        write_skymap(histogram, base)
    TableProperties(
        catalog_name=name,
        catalog_type=kind,
        total_rows=rows,
        ra_column="ra",
        dec_column="dec",
        healpix_column=SPATIAL_INDEX,
        healpix_order=MAX_ORDER,
        primary_catalog=primary,
        margin_threshold=margin_arcsec,
        hats_estsize=sum(file.stat().st_size for file in files) // 1024,
    ).to_properties_file(base)
