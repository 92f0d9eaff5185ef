"""The published weights of braai, read without Keras.

The preprocessing belongs to them: up to d6_m7 every *row* of pixels is divided by its own norm,
from d6_m9 on every channel by its own; in both NaN is 0 first, and what a clipped cutout lacks is
filled after. What cannot be scored is said by :func:`skyvec.realbogus.samples.faults`.

References:
    Duev et al. 2019, MNRAS 489, 3582.
"""

from pathlib import Path

import numpy as np

from skyvec.models.stamps import Vgg6, braai_weights


def load_braai(path: Path) -> Vgg6:
    """Read a Keras HDF5 file of braai's weights.

    Args:
        path: Such as ``braai_d6_m7.h5`` of the published repository.

    Returns:
        The network in evaluation mode, for stamps of 63 pixels.

    Raises:
        ValueError: The file is no Keras model, or not braai's.
        ImportError: h5py is not installed.
    """
    import h5py

    arrays: dict[str, np.ndarray] = {}
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is no HDF5 file: {error}") from error
    with file:
        root = file.get("model_weights", file)
        if "layer_names" not in root.attrs:
            raise ValueError(f"{path} holds no Keras layers")
        for layer in root.attrs["layer_names"]:
            group = root[_text(layer)]
            for name in group.attrs["weight_names"]:
                arrays[_text(name)] = np.asarray(group[_text(name)])
    net = Vgg6()
    try:
        net.load_state_dict(braai_weights(arrays))
    except RuntimeError as error:
        raise ValueError(f"{path} is not braai's network: {error}") from error
    return net.eval()


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
