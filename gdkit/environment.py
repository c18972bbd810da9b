"""Settings of the process that XLA reads when JAX first computes. The library itself changes none of them."""

import os
from collections.abc import MutableMapping
from contextlib import AbstractContextManager

_FLAG = "--xla_backend_extra_options"

# XLA compiles a loop over small arrays to one kernel, so that its many small operations (mostly statistics) are not
# called one by one. xla_cpu_use_multi_output_fusion would be faster still, but with it jaxlib 0.10.2 aborts the process
# on some programs, such as eigenvalues over lanes.
_CPU = "xla_cpu_small_while_loop_byte_threshold=1048576"


def faster_cpu(environment: MutableMapping[str, str] | None = None) -> None:
    """Let XLA compile a small loop on CPUs to one kernel, in all programs of this process.

    Call it before JAX computes anything, because XLA reads its flags once. The command line calls it. It changes
    nothing if XLA_FLAGS has such options already, and has no effect on accelerators. Results differ by rounding: a run
    repeats bit for bit only under the same flags.

    >>> environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    >>> faster_cpu(environment)
    >>> environment["XLA_FLAGS"].split()[1]
    '--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=1048576'
    """
    environment = os.environ if environment is None else environment
    flags = environment.get("XLA_FLAGS", "")
    if _FLAG not in flags:
        environment["XLA_FLAGS"] = f"{flags} {_FLAG}={_CPU}".strip()


def split_cpu(devices: int, environment: MutableMapping[str, str] | None = None) -> None:
    """Let JAX see the CPU as this many devices; call it before JAX computes anything.

    >>> environment = {}
    >>> split_cpu(8, environment)
    >>> environment
    {'XLA_FLAGS': '--xla_force_host_platform_device_count=8'}
    """
    environment = os.environ if environment is None else environment
    flag = "--xla_force_host_platform_device_count"
    others = [word for word in environment.get("XLA_FLAGS", "").split() if not word.startswith(flag)]
    environment["XLA_FLAGS"] = " ".join([*others, f"{flag}={devices}"])


def enable_x64(enabled: bool = True) -> AbstractContextManager[None]:
    """`jax.enable_x64`: whether JAX computes with 64-bit numbers within the context.

    >>> import jax.numpy as jnp
    >>> with enable_x64():
    ...     jnp.asarray(1.5).dtype
    dtype('float64')
    """
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(enabled)
    from jax.experimental import enable_x64 as experimental  # its only place before JAX 0.8

    return experimental(enabled)
