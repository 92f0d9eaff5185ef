"""Alert packets in Avro, as ZTF, Rubin LSST and WINTER send them: one detection each.

A packet carries three cutouts (FITS, often gzipped) and a record of the detection. Which survey
it is from is told by its fields, not by its schema's number, which packets often lack.

Every detection is bright in its difference. ZTF sends that of what has lost light turned round,
reference minus new; LSST does not, and is turned round here. The column ``sign`` is -1 for those.
"""

import gzip
import io
import math
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from skyvec.io.facts import EXACT
from skyvec.io.segments import RefusedError, Value
from skyvec.io.stamps import Triplet, admit, check
from skyvec.schema import STAMP_CHANNELS, Reject

__all__ = ["OPTIONS", "check", "count_items", "matches", "read", "read_packet", "triplet"]

OPTIONS = ("size",)
ZTF_SIDE, WINTER_SIDE = 63, 81
"""[px] Cutouts that no edge has clipped."""

ZTF_FRAME = (3080, 3072)
"""[px] Rows and columns of a read-out quadrant of ZTF."""

MAGIC = b"Obj\x01"
"""An Avro container begins so; a bare packet of a stream does not."""

_DAMAGED = (OSError, ValueError, TypeError, LookupError, EOFError, zlib.error, MemoryError)
_NEGATIVE = {"f", "F", "0", "False", "false"}
_BANDS = {1: "g", 2: "r", 3: "i"}
_CUTOUTS = {
    "ztf": ("cutoutScience", "cutoutTemplate", "cutoutDifference"),
    "lsst": ("cutoutScience", "cutoutTemplate", "cutoutDifference"),
    "winter": ("cutout_science", "cutout_template", "cutout_difference"),
}


def matches(path: Path) -> bool:
    """Say whether a file's name is that of Avro packets."""
    return path.name.lower().endswith(".avro")


def count_items(path: Path) -> int | None:
    """Containers do not say how many packets they hold."""
    return None


def read(path: Path, *, size: int = 0) -> Iterator[Triplet | Reject]:
    """Read the packets of a container file, in its order.

    Args:
        path: An Avro container.
        size: Side of the stamps [px], odd; 0 for all that is there (LSST's differ from packet to
            packet).

    Yields:
        Detections, and a reject with its reason for each packet (or for the rest of a damaged
        file) that cannot be taken.
    """
    import fastavro  # late: only alerts need it

    check(size=size)
    size -= size > 0 and size % 2 == 0
    row = 0
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
            if head != MAGIC:
                raise RefusedError(_no_container(head))
            file.seek(0)
            for packet in fastavro.reader(file):
                yield _one(packet, str(path), row, size)
                row += 1
    except RefusedError as error:
        yield Reject(str(path), row, "", str(error))
    except _DAMAGED as error:
        why = " ".join(str(error).split())
        yield Reject(str(path), row, "", f"not readable, damaged or cut off: {why}")


def _no_container(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head[0] == 0:
        return (
            "a bare packet in the Confluent wire format, without its schema; decode it with "
            "read_packet and the schema of its number"
        )
    return "no Avro container (it does not begin with 'Obj')"


def read_packet(
    data: bytes, *, schemas: Mapping[int, Any] | None = None, size: int = 0, source: str = ""
) -> Triplet | Reject:
    """Read one packet of a stream.

    Args:
        data: An Avro container with one packet, or a bare packet in the Confluent wire format:
            a zero, four bytes of the schema's number, the record.
        schemas: Parsed Avro schemas by that number, for bare packets.
        size: Side of the stamps [px], odd; 0 for all that is there.
        source: Where it came from, for a reject.
    """
    import fastavro  # late: only alerts need it

    try:
        if data[: len(MAGIC)] == MAGIC:
            packets = list(fastavro.reader(io.BytesIO(data)))
            if len(packets) != 1:
                raise RefusedError(f"{len(packets)} packets in one message")
            return _one(packets[0], source, 0, size)
        number = int.from_bytes(data[1:5], "big") if len(data) > 5 and data[0] == 0 else -1
        if number not in (schemas or {}):
            reason = f"no schema number {number}" if number >= 0 else _no_container(data[:4])
            raise RefusedError(reason)
        packet = fastavro.schemaless_reader(io.BytesIO(data[5:]), (schemas or {})[number], None)
        return _one(packet, source, 0, size)
    except RefusedError as error:
        return Reject(source, 0, "", str(error))
    except _DAMAGED as error:
        return Reject(source, 0, "", f"not readable: {' '.join(str(error).split())}")


def _one(packet: object, source: str, row: int, size: int) -> Triplet | Reject:
    if not isinstance(packet, Mapping):
        return Reject(source, row, "", f"no record, but {type(packet).__name__}")
    try:
        return triplet(packet, size=size)
    except RefusedError as error:
        return Reject(source, row, _key(packet), str(error))
    except _DAMAGED as error:
        reason = f"a damaged cutout: {' '.join(str(error).split())}"
        return Reject(source, row, _key(packet), reason)


def _key(packet: Mapping[str, Any]) -> str:
    for name in ("candid", "diaSourceId", "alertId"):
        if packet.get(name) is not None:
            return str(packet[name])
    return str((packet.get("diaSource") or {}).get("diaSourceId", ""))


def survey_of(packet: Mapping[str, Any]) -> str:
    """Name the survey of a packet by its fields.

    Raises:
        RefusedError: They are of none that is known.
    """
    if "diaSource" in packet:
        return "lsst"
    if "candidate" in packet and "cutout_science" in packet:
        return "winter"
    if "candidate" in packet and "cutoutScience" in packet:
        return "ztf"
    raise RefusedError(
        f"a packet of no known survey (ZTF, LSST, WINTER); its fields: {', '.join(packet)}"
    )


def triplet(packet: Mapping[str, Any], *, size: int = 0) -> Triplet:
    """Turn a decoded packet into a detection.

    The plain fields of the record (``candidate`` or ``diaSource``) become columns.

    Args:
        packet: As fastavro gives it.
        size: Side of the stamps [px], odd; 0 for all that is there.

    Raises:
        RefusedError: The packet is of no known survey, or a cutout is missing or damaged.
    """
    survey = survey_of(packet)
    record: Mapping[str, Any] = packet["diaSource" if survey == "lsst" else "candidate"] or {}
    cutouts, header = {}, fits.Header()
    for channel, name in zip(STAMP_CHANNELS, _CUTOUTS[survey]):
        data = packet.get(name)
        data = data.get("stampData") if isinstance(data, Mapping) else data
        if data:
            cutouts[channel], head = _image(data)
            header = head if channel == "difference" else header
    columns = _columns(record)
    columns["survey"] = survey
    if survey == "lsst":
        return _lsst(packet, record, cutouts, header, columns, size)
    # ZTF's names are upper and lower, WINTER's lower
    name = str(packet.get("objectId") or packet.get("objectid") or "")
    jd = float(record.get("jd", math.nan))
    if survey == "ztf":
        detector, nominal = f"rcid{record['rcid']}" if "rcid" in record else "", ZTF_SIDE
        centre = _ztf_centre(record, cutouts)
        columns["band"] = _BANDS.get(int(record.get("fid") or 0), "")
        columns["sign"] = -1 if str(record.get("isdiffpos", "t")) in _NEGATIVE else 1
    else:
        board = record.get("boardid", record.get("board_id"))
        detector, nominal, centre = "" if board is None else f"board{board}", WINTER_SIDE, None
    version = packet.get("schemavsn")
    columns["schema"] = "" if version is None else str(version)
    return admit(
        id=_key(packet),
        target=name,
        ra=float(record.get("ra", math.nan)),
        dec=float(record.get("dec", math.nan)),
        cutouts=cutouts,
        detector=detector,
        exposure=f"{survey}-{record.get('field', '')}-{jd:.5f}",
        columns=columns,
        size=size,
        nominal=nominal,
        centre=centre,
    )


def _lsst(
    packet: Mapping[str, Any],
    record: Mapping[str, Any],
    cutouts: Mapping[str, np.ndarray],
    header: fits.Header,
    columns: dict[str, Value],
    size: int,
) -> Triplet:
    visit, detector = record.get("visit", record.get("ccdVisitId")), record.get("detector")
    target = record.get("diaObjectId") or record.get("ssObjectId") or ""
    flux = record.get("psfFlux", record.get("psFlux"))
    columns["sign"] = -1 if flux is not None and flux < 0 else 1  # false for NaN
    if columns["sign"] == -1 and "difference" in cutouts:
        cutouts = {**cutouts, "difference": -cutouts["difference"].astype(np.float32)}
    centre = None
    if "CRPIX1" in header and "CRPIX2" in header:
        # the reference pixel of the cutout's coordinates is the detection, counted from 1
        centre = header["CRPIX2"] - 1, header["CRPIX1"] - 1
    return admit(
        id=_key(packet),
        target=str(target),
        ra=float(record.get("ra", math.nan)),
        dec=float(record.get("dec", record.get("decl", math.nan))),
        cutouts=cutouts,
        detector="" if detector is None else f"{int(detector):03d}",
        exposure="" if visit is None else f"lsst-{visit}",
        columns=columns,
        size=size,
        centre=centre,
    )


def _ztf_centre(
    record: Mapping[str, Any], cutouts: Mapping[str, np.ndarray]
) -> tuple[float, float] | None:
    """Where the detection is in a cutout that the edge of its quadrant may have clipped."""
    x, y = record.get("xpos"), record.get("ypos")
    image = cutouts.get("difference")
    if x is None or y is None or image is None:
        return None
    half = ZTF_SIDE // 2
    centre = []
    for length, whole, place in zip(image.shape, ZTF_FRAME, (y, x)):
        clipped_low = length < ZTF_SIDE and place < whole / 2
        centre.append(length - 1 - half if clipped_low else half)
    inside = all(0 <= c < length for c, length in zip(centre, image.shape))
    return (centre[0], centre[1]) if inside else None


def _image(data: bytes) -> tuple[np.ndarray, fits.Header]:
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)  # headers of cutouts are often incomplete
        with fits.open(io.BytesIO(data), memmap=False) as file:
            for hdu in file:
                if getattr(hdu, "data", None) is not None:
                    return np.asarray(hdu.data), hdu.header.copy()
    raise RefusedError("a cutout without pixels")


def _columns(record: Mapping[str, Any]) -> dict[str, Value]:
    """The plain fields of a record, under free names; those that are null are left out."""
    skip = {"ra", "dec", "decl", "detector"}
    columns: dict[str, Value] = {}
    for name, value in record.items():
        if name in skip:
            continue
        free = (
            f"{name}_given" if name in {"id", "target", "source", "exposure", "object"} else name
        )
        if isinstance(value, bool):
            columns[free] = int(value)
        elif isinstance(value, int):
            columns[free] = value if abs(value) <= EXACT else str(value)
        elif isinstance(value, float | str):
            columns[free] = value
    return columns
