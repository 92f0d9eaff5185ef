"""One thread for matrix products while our own threads share the work.

Two layers of threads on the same cores wait for each other: products inside a pool take twice as
long with as many threads of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from threadpoolctl import ThreadpoolController


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # looks at all loaded libraries, which takes milliseconds


@contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy's matrix products use one thread each for a while."""
    with _controller().limit(limits=1, user_api="blas"):
        yield
