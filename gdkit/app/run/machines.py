"""Other processes and machines that a run can use."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import jax

from gdkit.errors import RunError, bad_value, missing_package


@contextmanager
def dask_at(address: str | None) -> Generator[Any]:
    """A client of the Dask scheduler at an address, or named by a scheduler file; None without an address.

    Raises:
      MissingPackageError: Dask is not installed.
      RunError: nothing answers there.
    """
    if address is None:
        yield None
        return
    try:
        import distributed
    except ImportError:
        raise missing_package("dask.distributed", "dask", "--dask") from None
    at = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = distributed.Client(**at, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        remedy = "Start one with: dask scheduler, and workers with: dask worker ADDRESS --nthreads 1"
        raise RunError(f"--dask {address}: no scheduler answers there ({error}). {remedy}") from error
    with client:
        if not client.nthreads():
            raise RunError(f"--dask {address}: it has no workers. Start some with: dask worker {address} --nthreads 1")
        yield client


def join() -> None:
    """Meet the other processes that a launcher started, by ``jax.distributed``; before JAX is used.

    Raises:
      InputValueError: it cannot be told which they are.
    """
    number = lambda name: int(os.environ[name]) if os.environ.get(name) else None
    try:
        jax.distributed.initialize(num_processes=number("JAX_NUM_PROCESSES"), process_id=number("JAX_PROCESS_ID"))
    except (ValueError, RuntimeError) as error:
        where = "under SLURM, Open MPI or Kubernetes, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID"
        raise bad_value("--distributed", True, str(error).rstrip("."), f"Start it {where}") from error
