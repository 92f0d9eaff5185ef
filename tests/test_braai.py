"""Golden: braai's published weights give the production scores of real alerts."""

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import expit

from skyvec.io.stamps import Triplet, read
from skyvec.models.stamps import Vgg6
from skyvec.prep.stamps import normalise
from skyvec.realbogus.braai import load_braai
from skyvec.realbogus.train import scores_of


def write_keras(path, model):
    """A file as Keras writes it, holding the weights of one of our networks."""
    layers = {
        "conv1": model.one[0], "conv2": model.one[1], "pool": None, "conv3": model.two[0],
        "conv4": model.two[1], "fc_1": model.dense, "fc_out": model.out,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in layers]
        for name, layer in layers.items():
            group = root.create_group(name)
            if layer is None:
                group.attrs["weight_names"] = []
                continue
            weight = layer.weight.detach().numpy()
            kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
            names = [f"{name}/kernel:0", f"{name}/bias:0"]
            group.attrs["weight_names"] = [key.encode() for key in names]
            group[names[0]], group[names[1]] = kernel, layer.bias.detach().numpy()


def test_weights_as_keras_writes_them_are_read_back(tmp_path, one_thread):
    model = Vgg6().eval()
    write_keras(tmp_path / "w.h5", model)
    x = np.random.default_rng(0).random((2, 3, 63, 63)).astype(np.float32)
    assert np.array_equal(scores_of(load_braai(tmp_path / "w.h5"), x), scores_of(model, x))
    write_keras(tmp_path / "small.h5", Vgg6(width=8))
    with pytest.raises(ValueError, match="not braai"):
        load_braai(tmp_path / "small.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(ValueError, match="no HDF5"):
        load_braai(tmp_path / "text.h5")


@pytest.mark.real
def test_production_scores_of_real_alerts(real_data, one_thread):
    weights = real_data("weights/braai_d6_m7.h5")
    path = real_data("stamps/ztf_triplets.parquet")
    columns = ["cand_drbversion", "drb", "height", "width"]
    table = pq.read_table(path, columns=columns).to_pandas()
    # clipped cutouts lie elsewhere in ours: their detection stays in the middle
    wanted = (table.cand_drbversion == "d6_m7") & (table.height == 63) & (table.width == 63)
    items = [item for item, want in zip(read(path, size=63), wanted) if want]
    drb = table.drb[wanted].to_numpy()
    taken = np.array([isinstance(item, Triplet) for item in items])
    pixels = np.stack([item.pixels for item in items if isinstance(item, Triplet)])
    score = expit(scores_of(load_braai(weights), normalise(pixels, "row_norm")))
    close = np.abs(score - drb[taken]) < 1e-4
    assert len(items) > 200 and close.mean() >= 34 / 36
