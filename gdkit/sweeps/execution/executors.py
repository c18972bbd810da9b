"""Executors of other processes: how many tasks they run, what they raise when a worker dies, how they restart."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from gdkit.errors import RunError, bad_type, bad_value

LARGE_BYTES = 2**20  # processes of this machine read larger data from a file, instead of receiving them with every task


class DaskClient(Protocol):
    """The part of a ``dask.distributed.Client`` that gdkit uses."""

    get_executor: Callable[..., Executor]
    scatter: Callable[..., Any]
    submit: Callable[..., Any]
    nthreads: Callable[..., Any]


class SentSweep(NamedTuple):
    """A sweep as it is sent to workers: the data that all its tasks share."""

    digest: str
    pickled: bytes  # of the SweepRequest, its key as numbers, and of the ExecutionSettings
    jax_options: dict[str, Any]
    xla_flags: str
    import_paths: tuple[str, ...]
    directory: Path | None  # the run directory
    stop_file: Path | None  # exists once workers should stop
    file: Path | None = None  # holds the pickled bytes where `pickled` is empty


class Pool:
    """Any ``concurrent.futures.Executor`` whose tasks run in other processes.

    For an executor that gdkit cannot restart, write a subclass with its own `restart`.
    """

    worker_errors: tuple[type[BaseException], ...] = (BrokenExecutor,)  # raised for the tasks of a worker that died

    def __init__(self, executor: Executor, large_bytes: int = LARGE_BYTES):
        self._executor, self._is_restarted, self._large_bytes = executor, False, large_bytes
        self._folder: tempfile.TemporaryDirectory | None = None  # which only this user can read

    @property
    def size(self) -> int:
        """Number of tasks that run at once; that of the cores if the executor does not say."""
        # Executors of concurrent.futures have no public attribute for it.
        sizes = (getattr(self._executor, name, None) for name in ("num_workers", "_max_workers"))
        return next((n for n in sizes if isinstance(n, int) and n > 0), os.cpu_count() or 1)

    def share(self, sent: SentSweep) -> Any:
        """`sent` as an argument of many tasks: where it is large, processes of this machine read it from a file."""
        is_local = _is_loky(self._executor) or isinstance(self._executor, ProcessPoolExecutor)
        if not is_local or len(sent.pickled) <= self._large_bytes:
            return sent
        with contextlib.suppress(OSError):  # it is then sent with every task
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="gdkit-")
            path = Path(self._folder.name, sent.digest)
            path.write_bytes(sent.pickled)
            return sent._replace(pickled=b"", file=path)
        return sent

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        """A future of ``function(*arguments)``."""
        return self._executor.submit(function, *arguments)

    def restart(self) -> None:
        """Replace the executor, one of whose workers died.

        Raises:
          RunError: gdkit does not know how to make another executor of this kind.
        """
        old = self._executor
        make, settings = _constructor_of(old)
        if make is None:
            raise RunError(
                f"a worker of {type(old).__name__} died, and gdkit cannot restart executors of this kind. "
                "Run the same command again"
            )
        if self._is_restarted:
            old.shutdown(wait=False)
        # No executor has public attributes for the settings that it was created with.
        self._executor = make(**{name: getattr(old, f"_{name}") for name in settings})
        self._is_restarted = True

    def close(self) -> None:
        """Remove the files, and shut down the executor unless it is the user's own."""
        if self._is_restarted:
            self._executor.shutdown()
        if self._folder:
            self._folder.cleanup()


class DaskPool(Pool):
    """A ``distributed.Client``: workers may come and go, and the scheduler retries tasks."""

    def __init__(self, client: DaskClient):
        super().__init__(client.get_executor(pure=False))
        from distributed.scheduler import KilledWorker

        self._client, self.worker_errors = client, (KilledWorker, CancelledError)

    @property
    def size(self) -> int:
        """How many tasks run at once now."""
        return sum(self._client.nthreads().values()) or 1

    def share(self, sent: SentSweep) -> Any:
        """`sent` as the result of a task, which the scheduler runs again when workers die with every copy.

        Scattered data would be lost in this case, and tasks that need them could wait forever.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # it is sent once
            return self._client.submit(_identity, sent, pure=False)

    def restart(self) -> None:
        """Do nothing: the scheduler replaces workers that died."""


def _identity(value: Any) -> Any:
    return value


ExecutorLike = Executor | Pool | DaskClient
ParsedExecutor = Pool | ThreadPoolExecutor | None


def _constructor_of(executor: Executor) -> tuple[Callable[..., Any] | None, Sequence[str]]:
    """The constructor of executors of this kind, and the names of its settings; (None, ()) if it is unknown."""
    if isinstance(executor, ProcessPoolExecutor):
        return ProcessPoolExecutor, ("max_workers", "mp_context", "initializer", "initargs")
    if _is_loky(executor):
        import loky

        return loky.ProcessPoolExecutor, ("max_workers", "context", "timeout", "initializer", "initargs", "env")
    return None, ()


def _is_loky(executor: Executor) -> bool:
    return type(executor).__module__.startswith("loky")


def parse_executor(executor: ExecutorLike | None, large_bytes: int = LARGE_BYTES) -> ParsedExecutor:
    """The argument `executor` of a sweep: an executor of threads as it is, others as a pool.

    Raises:
      GdkitError: as `make_pool`.
    """
    is_threads = executor is None or isinstance(executor, ThreadPoolExecutor)
    return executor if is_threads else make_pool(executor, large_bytes)


def make_pool(executor: ExecutorLike, large_bytes: int = LARGE_BYTES) -> Pool:
    """The pool of an executor of processes, or of a Dask client.

    Raises:
      InputTypeError: it is neither.
      InputValueError: it forks this process, in which JAX runs threads.
    """
    if isinstance(executor, Pool):
        return executor
    if not isinstance(executor, Executor) and hasattr(executor, "get_executor") and hasattr(executor, "scatter"):
        return DaskPool(executor)
    if not isinstance(executor, Executor):
        remedy = "Pass a concurrent.futures.Executor such as ProcessPoolExecutor, or a dask.distributed Client"
        if callable(getattr(executor, "submit", None)):  # such as submitit's, whose futures are of another kind
            remedy = "Submit gdkit.sweep itself to it, several times and with store=DIR: the calls share the work"
        raise bad_type("executor", executor, "not an executor", remedy)
    context = getattr(executor, "_mp_context", None)  # no public attribute
    if isinstance(executor, ProcessPoolExecutor) and context and context.get_start_method() == "fork":
        remedy = "Pass ProcessPoolExecutor(mp_context=multiprocessing.get_context('spawn'))"
        raise bad_value("executor", executor, "it forks this process, and JAX's threads do not survive that", remedy)
    return Pool(executor, large_bytes)
