"""Executors as a sweep uses them: how many tasks they run, what they raise when a worker dies, how they begin anew."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gdkit.errors import RunError, bad_type, bad_value

_LARGE = 2**20  # bytes: processes of this machine read what is larger from a file, instead of with every task


class Pool:
    """Any ``concurrent.futures.Executor`` whose tasks run in other processes."""

    lost: tuple[type[BaseException], ...] = (BrokenExecutor,)  # what is raised for the tasks of a worker that died

    def __init__(self, executor: Any):
        self._executor, self._made = executor, False
        self._folder: tempfile.TemporaryDirectory | None = None  # for this user's eyes alone

    @property
    def size(self) -> int:
        """How many tasks run at once, as far as that is known."""
        # Executors of concurrent.futures have no public attribute for it.
        known = (getattr(self._executor, name, None) for name in ("num_workers", "_max_workers"))
        return next((n for n in known if isinstance(n, int) and n > 0), os.cpu_count() or 1)

    def place(self, value: Any) -> Any:
        """What many tasks are given, a `remote.Sent`, brought to where it is cheap to give."""
        is_local = _is_loky(self._executor) or isinstance(self._executor, ProcessPoolExecutor)
        if not is_local or len(value.pickled) <= _LARGE:
            return value
        with contextlib.suppress(OSError):  # it then travels with every task
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="gdkit-")
            path = Path(self._folder.name, value.digest)
            path.write_bytes(value.pickled)
            return value._replace(pickled=b"", file=path)
        return value

    def submit(self, function: Any, *arguments: Any) -> Future:
        """A future of ``function(*arguments)``."""
        return self._executor.submit(function, *arguments)

    def anew(self) -> None:
        """Begin anew after a worker died.

        Raises:
          RunError: that is not known of executors of this kind.
        """
        old = self._executor
        make, settings = _again(old)
        if make is None:
            raise RunError(f"a worker of {type(old).__name__} died, and it cannot be started anew. Run the same again")
        if self._made:
            old.shutdown(wait=False)
        # No executor has public attributes for the settings that it was created with.
        self._executor, self._made = make(**{name: getattr(old, f"_{name}") for name in settings}), True

    def close(self) -> None:
        """End what was started here; the user's own executor stays."""
        if self._made:
            self._executor.shutdown()
        if self._folder:
            self._folder.cleanup()


class Dask(Pool):
    """A ``distributed.Client``: workers may come and go, and a task is tried again by the scheduler."""

    def __init__(self, client: Any):
        super().__init__(client.get_executor(pure=False))
        from distributed.scheduler import KilledWorker

        self._client, self.lost = client, (KilledWorker, CancelledError)

    @property
    def size(self) -> int:
        """How many tasks run at once now."""
        return sum(self._client.nthreads().values()) or 1

    def place(self, value: Any) -> Any:
        """As the result of a task, which the scheduler runs again when workers die with every copy.

        Scattered data is lost then, and tasks that need it can wait for ever.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # it is sent once
            return self._client.submit(_same, value, pure=False)

    def anew(self) -> None:
        """The scheduler does that."""


def _same(value: Any) -> Any:
    return value


def _again(executor: Any) -> tuple[Any, Sequence[str]]:
    """What makes an executor of the same kind, and of which settings; None where that is not known."""
    if isinstance(executor, ProcessPoolExecutor):
        return ProcessPoolExecutor, ("max_workers", "mp_context", "initializer", "initargs")
    if _is_loky(executor):
        import loky

        return loky.ProcessPoolExecutor, ("max_workers", "context", "timeout", "initializer", "initargs", "env")
    return None, ()


def _is_loky(executor: Any) -> bool:
    return type(executor).__module__.startswith("loky")


def is_remote(executor: Any) -> bool:
    """Whether an executor's tasks run in other processes."""
    return executor is not None and not isinstance(executor, ThreadPoolExecutor)


def pool_of(executor: Any) -> Pool:
    """An executor or a Dask client as a pool.

    Raises:
      InputTypeError: it is neither.
      InputValueError: it forks this process, whose threads JAX uses.
    """
    if hasattr(executor, "get_executor") and hasattr(executor, "scatter"):
        return Dask(executor)
    if not isinstance(executor, Executor):
        remedy = "Pass a concurrent.futures.Executor such as ProcessPoolExecutor, or a dask.distributed Client"
        if callable(getattr(executor, "submit", None)):  # submitit's, whose futures are of its own kind
            remedy = "Submit gdkit.sweep itself to it, several times and with store=DIR: they share the work"
        raise bad_type("executor", executor, "no executor", remedy)
    context = getattr(executor, "_mp_context", None)  # no public attribute
    if isinstance(executor, ProcessPoolExecutor) and context and context.get_start_method() == "fork":
        remedy = "Pass ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))"
        raise bad_value("executor", executor, "it forks this process, and JAX's threads do not survive that", remedy)
    return Pool(executor)
