"""One writer at a time for a folder."""

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from skyvec.store.names import StoreError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems say that know no locks; there nobody is kept out."""


@contextmanager
def lock(folder: Path, task: str) -> Iterator[None]:
    """Keep other processes from writing a folder while this one does.

    The system gives the lock back when the process ends, however it ends. A file
    ``.lock-FOLDER`` beside the folder says who holds it, and is removed at the end.

    Args:
        folder: What is written; need not be there yet.
        task: The command in words, for the message to others: ``ingest``.

    Raises:
        StoreError: Another process writes there; the message says which, and since when.
    """
    path = folder.parent / f".lock-{folder.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, folder) as file:
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        file.truncate(0)
        file.write(f"skyvec {task} (process {os.getpid()} on {platform.node()}, since {now})")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path, folder: Path) -> TextIO:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read() or "skyvec"
            file.close()
            raise StoreError(
                f"another {who} is writing {folder}; wait until it has ended, then run again"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # whoever held it has just removed the file that was opened here
