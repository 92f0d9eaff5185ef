"""Serving from Milvus, for teams whose vectors have outgrown one machine.

The same questions, asked of a running engine: any cluster by its URI, or a file for the embedded
``milvus-lite``. Vectors go in as unit vectors and are compared by inner product, so similarity is
the cosine, as everywhere in skyvec. Needs the extra ``milvus``.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BATCH = 1000
ID_LENGTH = 256


class Hits(NamedTuple):
    """Neighbours of one query, most alike first; shapes (m,), m <= k."""

    id: NDArray[np.str_]
    target: NDArray[np.str_]
    similarity: NDArray[np.float32]


class MilvusIndex:
    """A collection of latents in Milvus.

    Args:
        uri: Of a cluster (``http://host:19530``), or the path of a ``.db`` file.
        collection: Name: letters, digits and underscores.
        width: Of the vectors; needed where the collection is not there yet.
        token: For clusters that want one.
        index_type: ``FLAT`` is exact; a cluster also has ``IVF_FLAT`` and ``HNSW``.

    Raises:
        ModuleNotFoundError: pymilvus is not installed.
        ValueError: The collection is not there and no width was given.
    """

    def __init__(
        self,
        uri: str,
        collection: str,
        *,
        width: int | None = None,
        token: str = "",
        index_type: str = "FLAT",
    ) -> None:
        from pymilvus import MilvusClient

        self.collection = collection
        self.client = MilvusClient(uri, token=token)
        if not self.client.has_collection(collection):
            if width is None:
                raise ValueError(f"no collection {collection!r} at {uri}; give width to make it")
            self._create(width, index_type)

    def _create(self, width: int, index_type: str) -> None:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=ID_LENGTH)
        schema.add_field("target", DataType.VARCHAR, max_length=ID_LENGTH)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
        index = self.client.prepare_index_params()
        index.add_index("vector", index_type=index_type, metric_type="IP")
        self.client.create_collection(self.collection, schema=schema, index_params=index)

    def __len__(self) -> int:
        self.client.flush(self.collection)
        return int(self.client.get_collection_stats(self.collection)["row_count"])

    def add(
        self, ids: Sequence[str], targets: Sequence[str], vectors: NDArray[np.float32]
    ) -> None:
        """Add latents, or replace those whose id is there already.

        Raises:
            ValueError: Lengths differ, or a vector is not finite or is zero.
        """
        if not len(ids) == len(targets) == len(vectors):
            raise ValueError(f"{len(ids)} ids, {len(targets)} targets, {len(vectors)} vectors")
        unit = _unit(vectors)
        for first in range(0, len(ids), BATCH):
            rows = range(first, min(first + BATCH, len(ids)))
            self.client.upsert(
                self.collection,
                [{"id": str(ids[i]), "target": str(targets[i]), "vector": unit[i]} for i in rows],
            )

    def delete(self, ids: Iterable[str]) -> None:
        """Remove latents by id; an id that is not there is no error."""
        self.client.delete(self.collection, ids=list(ids))

    def search(
        self, queries: NDArray[np.float32], k: int, *, not_targets: Sequence[str] = ()
    ) -> list[Hits]:
        """Find the k most alike for each query, other than those of some targets.

        Args:
            queries: Shape (q, d).
            k: How many, >= 1.
            not_targets: Targets that may not answer.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        excluded = "[" + ", ".join(_quoted(target) for target in not_targets) + "]"
        found = self.client.search(
            self.collection,
            data=list(_unit(queries)),
            limit=k,
            output_fields=["target"],
            filter=f"target not in {excluded}" if not_targets else "",
        )
        return [
            Hits(
                np.array([hit["id"] for hit in hits], np.str_),
                np.array([hit["entity"]["target"] for hit in hits], np.str_),
                np.array([hit["distance"] for hit in hits], np.float32),
            )
            for hits in found
        ]

    def close(self) -> None:
        """Let go of the connection."""
        self.client.close()


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(vectors).all() or not norm.all():
        raise ValueError("vectors must be finite and not zero; a zero code has no direction")
    return (vectors / norm).astype(np.float32)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
