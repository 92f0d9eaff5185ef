"""The networks, one a file, and the table of their names.

The contract: a model is an ``nn.Module`` built from keyword arguments, with

* ``modality``: what it reads, ``lightcurves``, ``images`` or ``stamps``; of the class;
* ``latent``: the width of the indexed code;
* ``code(batch) -> (n, c)``: all that the decoder needs; the first ``latent`` columns are indexed;
* ``encode(batch) -> (n, latent)``: exactly those columns;
* where it reconstructs, of light curves ``decode(code, times) -> (N,)``: the value at every point
  of ``times`` (whose own is not read); of images ``decode(code) -> (n, C, Y, X)``;
* ``loss(batch, generator) -> (scalar, {name: scalar})``: self-supervised, no labels.

``batch`` and ``times`` are :class:`skyvec.nn.ragged.Ragged` for light curves and
:class:`skyvec.nn.frames.Frames` for images and stamps. No optimiser, device, file or
recipe lives in a model.
"""

from typing import Any

from skyvec.models.gridconv import GridConv
from skyvec.models.logpolar import LogPolar
from skyvec.models.ode_rnn import OdeRnn
from skyvec.models.residual_vae import ResidualVae
from skyvec.models.vae import Vae

MODELS: dict[str, Any] = {
    "gridconv": GridConv,
    "logpolar": LogPolar,
    "ode_rnn": OdeRnn,
    "residual_vae": ResidualVae,
    "vae": Vae,
}
