"""The networks, one a file, and the table of their names.

The contract: a model is an ``nn.Module`` built from keyword arguments, with

* ``latent``: the width of the indexed code;
* ``code(batch) -> (n, c)``: all that the decoder needs; the first ``latent`` columns are indexed;
* ``encode(batch) -> (n, latent)``: exactly those columns;
* ``decode(code, times) -> (N,)``: the value at every point of ``times`` (whose own is not read);
* ``loss(batch, generator) -> (scalar, {name: scalar})``: self-supervised, no labels.

``batch`` and ``times`` are :class:`skyvec.nn.ragged.Ragged`. No optimiser, device, file or
recipe lives in a model.
"""

from torch import nn

from skyvec.models.gridconv import GridConv
from skyvec.models.ode_rnn import OdeRnn

MODELS: dict[str, type[nn.Module]] = {"gridconv": GridConv, "ode_rnn": OdeRnn}
