"""What several test files share: where the real survey data lie."""

import os
from pathlib import Path

import pytest

# threads of parallel test runs share the cores; spinning while they wait would make each run
# tens of times slower (must be set before torch is imported)
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data():
    """Give the path of a real data set, or skip the test where the data are not there.

    ``real_data("lightcurves/asas_acvs.parquet")``
    """

    def find(name=""):
        path = DATA / name
        if not path.exists():
            pytest.skip(f"no real survey data: {name or 'shared/data'} is not beside the checkout")
        return path

    return find


@pytest.fixture
def one_thread():
    """Let torch use one thread: small batches gain nothing from more; sums may depend on it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
