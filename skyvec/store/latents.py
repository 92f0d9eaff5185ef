"""Latents on disk: shard by shard under the names of the object shards."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyvec.schema import Latents
from skyvec.store.columns import strings
from skyvec.store.files import sha256, write_table
from skyvec.store.manifests import read_manifest, write_manifest
from skyvec.store.names import StoreError, latents_folder, model_names
from skyvec.store.surveys import check_survey


def write_latents(survey: Path, file: str, latents: Latents, objects_sha256: str) -> None:
    """Add the latents of one object shard, under the same file name, in one step.

    Args:
        survey: The survey's folder.
        file: Name of the object shard they were made from.
        latents: One row a segment of that shard.
        objects_sha256: Hash of that shard, so that a changed one is encoded again.
    """
    folder = latents_folder(survey, latents.model)
    manifest = read_manifest(folder)
    if manifest.setdefault("model_hash", latents.model_hash) != latents.model_hash:
        raise StoreError(
            f"{folder} holds latents of another model ({manifest['model_hash'][:12]}); "
            f"remove the folder, or encode under another name"
        )
    write_table(folder / file, _latents_table(latents))
    entry = {
        "file": file,
        "rows": len(latents),
        "objects_sha256": objects_sha256,
        "sha256": sha256(folder / file),
    }
    manifest["shards"] = sorted(
        [s for s in manifest["shards"] if s["file"] != file] + [entry], key=lambda s: s["file"]
    )
    write_manifest(folder, manifest)


def _latents_table(latents: Latents) -> pa.Table:
    width = latents.vectors.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(latents.vectors.ravel()), width)
    return pa.table(
        {
            "id": pa.array(latents.id),
            "target": pa.array(latents.target),
            "ra": pa.array(latents.ra, pa.float64()),
            "dec": pa.array(latents.dec, pa.float64()),
            "latent": vectors,
            "error": pa.array(latents.error, pa.float32()),
        }
    ).replace_schema_metadata({"model": latents.model, "model_hash": latents.model_hash})


def latent_shards(survey: Path, name: str) -> list[dict[str, Any]]:
    """Manifest entries of the latents of one model, in the order of the object shards.

    Raises:
        StoreError: There are none; the message names the models that have some.
    """
    check_survey(survey)
    shards: list[dict[str, Any]] = read_manifest(latents_folder(survey, name))["shards"]
    if not shards:
        known = ", ".join(model_names(survey)) or "none yet"
        raise StoreError(
            f"no latents of {name!r} in {survey} (there are: {known}); "
            f"make them with `skyvec encode {name} --survey {survey}`"
        )
    return shards


def read_latent_columns(survey: Path, name: str, file: str, columns: list[str]) -> pa.Table:
    """Read some columns of one shard of latents: id, target, ra, dec, latent, error."""
    return pq.read_table(latents_folder(survey, name) / file, columns=columns)


def vectors_of(latent: pa.ChunkedArray) -> np.ndarray:
    """The column ``latent`` as float32, shape (n, d)."""
    flat = latent.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat).reshape(-1, latent.type.list_size)


def read_latents(survey: Path, name: str) -> Latents:
    """Read all latents of one model, in the order of the object shards.

    Raises:
        StoreError: There are none; the message names the models that have some.
    """
    files = [shard["file"] for shard in latent_shards(survey, name)]
    folder = latents_folder(survey, name)
    table = pa.concat_tables(pq.read_table(folder / file) for file in files)
    return Latents(
        strings(table["id"]),
        strings(table["target"]),
        vectors_of(table["latent"]),
        name,
        read_manifest(folder)["model_hash"],
        table["ra"].to_numpy(),
        table["dec"].to_numpy(),
        table["error"].to_numpy(),
    )
