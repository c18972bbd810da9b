"""Settings of the process that XLA reads when JAX first computes. The library itself changes none of them."""

import functools
import os
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gdkit.errors import import_package

P = ParamSpec("P")
R = TypeVar("R")

_FLAG = "--xla_backend_extra_options"

# XLA compiles a loop over small arrays to one kernel, so that its many small operations (mostly statistics) are not
# called one by one. Larger loops are faster outside of such a kernel, where their matrix products call a library: with
# a threshold of 1 MiB, logistic regression takes five times as long. xla_cpu_use_multi_output_fusion would be faster
# still, but with it jaxlib 0.10.2 aborts the process on some programs, such as eigenvalues over lanes.
_CPU = "xla_cpu_small_while_loop_byte_threshold=524288"


def faster_cpu(environment: MutableMapping[str, str] | None = None) -> None:
    """Let XLA compile a small loop on CPUs to one kernel, in all programs of this process.

    Call it before JAX computes anything, because XLA reads its flags once. The command line calls it. It changes
    nothing if XLA_FLAGS has such options already, and has no effect on accelerators. Results differ by rounding: a run
    repeats bit for bit only under the same flags.

    >>> environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    >>> faster_cpu(environment)
    >>> environment["XLA_FLAGS"].split()[1]
    '--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=524288'
    """
    environment = os.environ if environment is None else environment
    flags = environment.get("XLA_FLAGS", "")
    if _FLAG not in flags:
        environment["XLA_FLAGS"] = f"{flags} {_FLAG}={_CPU}".strip()


def cache_programs(path: str | os.PathLike[str] | None = None) -> Path:
    """Store compiled programs on disk, so that later processes load them instead of compiling; returns the folder.

    JAX's persistent compilation cache with the thresholds of the command line, which calls this. It can be called at
    any time, and holds for all programs of this process that are compiled afterwards. The programs that were used
    least recently are removed from the folder when it has more than 1 GiB.

    Args:
      path: the folder; by default ``programs`` in gdkit's folder of the user's cache, which the command line uses too.

    Raises:
      MissingPackageError: platformdirs, which knows the user's cache, is not installed, and no path is given.

    >>> import tempfile
    >>> cache_programs(tempfile.mkdtemp()).is_dir()  # doctest: +SKIP
    True
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    folder = _user_cache() / "programs" if path is None else Path(path).expanduser()
    _prune(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # JAX decides once, at its first program, whether it has a cache
    return folder


def _user_cache() -> Path:
    platformdirs = import_package("platformdirs", "app", "The folder of the user's cache")
    return Path(platformdirs.user_cache_dir("gdkit"))


_PROGRAM_BYTES = 2**30


def _prune(folder: Path) -> None:
    """Remove the least recently used programs, so that the cache stays bounded."""
    files = [(f.stat().st_atime, f.stat().st_size, f) for f in folder.glob("*-cache") if f.is_file()]
    total = 0
    for _, size, file in sorted(files, reverse=True):
        total += size
        if total > _PROGRAM_BYTES:
            file.unlink(missing_ok=True)


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
    from jax.experimental import enable_x64 as experimental  # only here before JAX 0.8

    return experimental(enabled)


def read_precision() -> tuple[bool, str | None]:
    """Whether arrays may have 64 bits, and the precision of matrix products, in this thread."""
    import jax

    config: Any = jax.config
    return config.read("jax_enable_x64"), config.jax_default_matmul_precision


def keep_precision(function: Callable[P, R]) -> Callable[P, R]:
    """`function` for another thread, where it computes with the precision of this one.

    `jax.enable_x64` holds in the thread that enters it, and a program takes arrays of the precision that it was
    compiled for.

    >>> import threading, jax.numpy as jnp
    >>> dtypes = []
    >>> with enable_x64():
    ...     thread = threading.Thread(target=keep_precision(lambda: dtypes.append(jnp.asarray(1.5).dtype)))
    >>> thread.start(), thread.join(), dtypes
    (None, None, [dtype('float64')])
    """
    import jax

    wide = jax.config.read("jax_enable_x64")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if jax.config.read("jax_enable_x64") == wide:
            return function(*args, **kwargs)
        with enable_x64(wide):
            return function(*args, **kwargs)

    return call
