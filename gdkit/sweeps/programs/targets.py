"""Accelerators that this machine lacks: their properties, and a device to compile programs for."""

import importlib.util
import os
from typing import Any, NamedTuple

import jax

from gdkit.errors import missing_package
from gdkit.sweeps.programs.kernels import Work


class Target(NamedTuple):
    """An accelerator with the properties that its manufacturer publishes."""

    title: str
    memory: int  # bytes
    bandwidth: float  # bytes per second, of its memory
    topology: str  # for XLA
    machine: str = ""  # the type of a TPU's machine
    cores: int = 0  # streaming multiprocessors; 0 for a TPU
    capability: tuple[int, int] = (0, 0)  # CUDA compute capability
    lanes_per_core: int = 128  # float32 operations that a multiprocessor starts per clock
    shared_memory: int = 0  # bytes per multiprocessor
    cache: int = 0  # bytes of the second level
    clock: float = 0.0  # GHz

    @property
    def platform(self) -> str:
        """The platform of JAX."""
        return "cuda" if self.cores else "tpu"


_H100 = Target("NVIDIA H100 SXM", 80 * 2**30, 3.35e12, "1x1x1", "", 132, (9, 0), 128, 228 * 1024, 50 * 2**20, 1.98)
TARGETS = {
    "h200": _H100._replace(title="NVIDIA H200", memory=141 * 10**9, bandwidth=4.8e12),
    "h100": _H100,
    "a100": Target("NVIDIA A100 SXM", 80 * 2**30, 2.04e12, "1x1x1", "", 108, (8, 0), 64, 164 * 1024, 40 * 2**20, 1.41),
    "v5e": Target("TPU v5e", 16 * 2**30, 8.19e11, "v5e:2x2", "v5litepod-4"),
    "v6e": Target("TPU v6e", 32 * 2**30, 1.64e12, "v6e:2x2", "v6e-4"),
}  # the memory and its bandwidth as NVIDIA and Google publish them

HERE = "here"  # the device of this machine

# Seconds per kernel, per launch and per synchronization of the host, from steps measured on an H200: by hand 13.4 µs
# with 2 launches (scalar) and 44.4 µs with 25 kernels in one launch (digits MLP), and single steps of gdkit, 162 µs
# with 46 kernels, 3 launches and a synchronization.
_KERNEL, _LAUNCH, _SYNC = 1.57e-6, 5.1e-6, 74e-6

_PACKAGES = {"cuda": ("jax_cuda12_plugin", "jax[cuda12]", "cuda"), "tpu": ("libtpu", "libtpu", "tpu")}


def is_installed(name: str) -> bool:
    """Whether the compiler for a target is installed."""
    return importlib.util.find_spec(_PACKAGES[TARGETS[name].platform][0]) is not None


def get_device(name: str) -> jax.Device:
    """A device of a target, for which programs can be compiled but not run; otherwise as `get_devices`."""
    return get_devices(name, TARGETS[name].topology)[0]


def get_devices(name: str, topology: str) -> list[jax.Device]:
    """Devices of a target that are connected, for which programs can be compiled but not run.

    Call it before JAX starts its backends: it sets the CUDA plugin to run without a driver. The topology, for XLA, is
    ``1x1xN`` of GPUs, and of TPUs their kind and grid, ``v5e:2x2``.

    Raises:
      MissingPackageError: the compiler is not installed.
    """
    target = TARGETS[name]
    if not is_installed(name):
        _, package, extra = _PACKAGES[target.platform]
        raise missing_package(package, extra, f"--device {name}")
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    if target.platform == "tpu":  # there is no machine to ask
        of_machine = {"SKIP_MDS_QUERY": "1", "WORKER_HOSTNAMES": "localhost", "ACCELERATOR_TYPE": target.machine}
        for variable, value in of_machine.items():
            os.environ.setdefault(f"TPU_{variable}", value)
    if not getattr(jax.config, "jax_platforms", None):
        jax.config.update("jax_platforms", "cpu")  # this process compiles for the target, and runs nothing there
    from jax.experimental import topologies

    config: dict[str, Any] = {"topology_name": topology}
    if target.platform == "cuda":
        config = {"target_config": _describe(target), "topology": topology}
    return topologies.get_topology_desc(platform=target.platform, **config).devices


def estimate_seconds(work: Work, target: Target) -> float:
    """Seconds per step; on a TPU, whose operations are not measured, the time to move the bytes."""
    moving = work.bytes / target.bandwidth
    if target.platform == "tpu":
        return moving
    return _SYNC * work.syncs + max(_KERNEL * work.kernels + _LAUNCH * work.launches, moving)


def _describe(target: Target) -> str:
    """A target as XLA's GpuTargetConfigProto, in text."""
    major, minor = target.capability
    numbers = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 48 * 1024,
        "shared_memory_per_block_optin": target.shared_memory - 1024,
        "shared_memory_per_core": target.shared_memory,
        "threads_per_core_limit": 2048,
        "core_count": target.cores,
        "fpus_per_core": target.lanes_per_core,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "registers_per_core_limit": 65_536,
        "registers_per_block_limit": 65_536,
        "memory_bandwidth": int(target.bandwidth),
        "l2_cache_size": target.cache,
        "clock_rate_ghz": target.clock,
        "device_memory_size": target.memory,
    }
    versions = dict.fromkeys(("driver_version", "runtime_version", "compile_time_toolkit_version"), "12.9.0")
    fields = [f"{name}: {value}" for name, value in numbers.items()]
    fields += [f'{name}: "{value}"' for name, value in (versions | {"dnn_version": "9.10.0"}).items()]
    fields += [f"cuda_compute_capability {{ major: {major} minor: {minor} }}"]
    dnn = "dnn_version_info { major: 9 minor: 10 patch: 0 }"
    info = f"gpu_device_info {{ {' '.join(fields)} }}"
    return f'{info} platform_name: "CUDA" {dnn} device_description_str: "{target.title}"'
