"""Other processes and machines that a run can use: a Dask cluster, or the processes of a launcher."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import jax

from gdkit.errors import RunError, bad_value, import_package

if TYPE_CHECKING:
    from distributed import Client


@contextmanager
def connect_dask(address: str | None) -> "Generator[Client | None]":
    """A client of the Dask scheduler at an address or of a scheduler file; None without an address.

    Raises:
      MissingPackageError: Dask is not installed.
      RunError: no scheduler answers, or it has no workers.
    """
    if address is None:
        yield None
        return
    distributed = import_package("distributed", "dask", "--dask", "dask.distributed")
    options = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = distributed.Client(**options, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        remedy = "Start one with: dask scheduler, and workers with: dask worker ADDRESS --nthreads 1"
        raise RunError(f"--dask {address}: no scheduler answers ({error}). {remedy}") from error
    with client:
        if not client.nthreads():
            remedy = f"Start some with: dask worker {address} --nthreads 1"
            raise RunError(f"--dask {address}: the scheduler has no workers. {remedy}")
        yield client


def join_processes() -> None:
    """Join the processes of a launcher by ``jax.distributed``; must run before JAX is used.

    Raises:
      InputValueError: the launcher's processes cannot be determined.
    """
    number = lambda name: int(os.environ[name]) if os.environ.get(name) else None
    try:
        jax.distributed.initialize(num_processes=number("JAX_NUM_PROCESSES"), process_id=number("JAX_PROCESS_ID"))
    except (ValueError, RuntimeError) as error:
        settings = "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID"
        remedy = f"Start it under SLURM, Open MPI or Kubernetes, or set {settings}"
        raise bad_value("--distributed", True, str(error).rstrip("."), remedy) from error
