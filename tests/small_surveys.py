"""Surveys of noisy sinusoids, made with numpy alone, for tests of batches, train and encode."""

import numpy as np

from skyvec import store
from skyvec.schema import Catalog, LightCurves


def light(ids, lengths, *, bands=("g", "r"), seed=0, flat=()):
    """Noisy sinusoids in random bands; the rows named in ``flat`` are constant."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    curve = np.repeat(np.arange(len(ids)), lengths)
    mjd = np.concatenate([58000 + np.sort(rng.random(m)) * 27 for m in lengths] or [np.zeros(0)])
    flux = 10 + np.sin(mjd * (1 + curve % 7)) + 0.1 * rng.normal(size=len(mjd))
    flux[np.isin(curve, flat)] = 10
    band = rng.integers(0, len(bands), len(mjd)).astype(np.int16)
    error = np.full(len(mjd), 0.1, np.float32)
    names = np.array(ids, dtype=np.str_)
    return LightCurves(names, offsets, mjd, flux.astype(np.float32), error, band, bands)


def add(survey, ids, lengths, targets=None, **options):
    """Append one shard of sinusoids to a survey, and make the survey if it is not there."""
    store.create_survey(survey)
    curves = light(ids, lengths, **options)
    nan = np.full(len(ids), np.nan)
    catalog = Catalog(curves.id, np.array(targets or ids, dtype=np.str_), nan, nan)
    store.append_objects(survey, catalog, curves, np.full(len(ids), "here"))
