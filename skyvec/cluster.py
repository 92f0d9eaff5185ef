"""Work handed to the workers of a Dask cluster; its answers come back as they are finished."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

AHEAD = 2
"""Tasks a worker's thread that may be out at once: only so many answers wait to be written."""


def as_finished(
    function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], scheduler: str
) -> Iterator[tuple[int, Any]]:
    """Call a function with each of several arguments on a cluster.

    A worker that dies costs its tasks' time and nothing else.

    Args:
        function: At the top of its module, so that a worker finds it.
        arguments: Of each call.
        scheduler: Address, ``tcp://host:8786``; ``local`` starts a worker a core.

    Yields:
        Number of the call and its answer.
    """
    from dask.distributed import Client, as_completed

    left = iter(enumerate(arguments))
    local = {"threads_per_worker": 1, "dashboard_address": None}
    with Client(**local) if scheduler == "local" else Client(scheduler) as client:
        tasks: dict[Any, int] = {}
        running = as_completed(with_results=True)

        def hand_out() -> None:
            for i, given in left:
                task = client.submit(function, *given, pure=False)
                tasks[task] = i
                running.add(task)
                return

        for _ in range(AHEAD * max(1, sum(client.nthreads().values()))):
            hand_out()
        for task, answer in running:
            hand_out()
            yield tasks.pop(task), answer
            task.release()
