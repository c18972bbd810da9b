"""Settings of the whole test session. They are made here, on import, before any test makes JAX do work."""

import gc
import ipaddress
import os
import socket
from pathlib import Path

# Compiled programs are kept between sessions, small ones too. Processes that a test starts inherit this.
SETTINGS = {
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parent.parent / ".jax_cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "JAX_PLATFORMS": "cpu",
    # Programs without the lines that they come from: below pytest these are deep stacks, an eighth of the time.
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",
    "MPLBACKEND": "agg",
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
# Compiling the Python that they import would be most of what short processes do.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(__file__).parent.parent / ".jax_cache" / "bytecode"))

# Compiling is most of what the tests do, and these options make it a quarter; the programs compute the same in another
# order of rounding. `XLA_FLAGS= make test` compiles as for users.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": 1,
}
os.environ.setdefault("XLA_FLAGS", " ".join(f"--{name}={value}" for name, value in QUICK.items()))

from gdkit.environment import faster_cpu  # noqa: E402

faster_cpu()  # as the command line does

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes so many small objects that a tenth of the time went into looking for garbage among them.
gc.set_threshold(200_000, 50, 50)


def pytest_sessionfinish():
    """Looks for garbage once; pytest does so five times, and Python again when it ends."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Refuses every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise OSError(f"a test tried to reach {address[0]}: tests use no network")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report, with its result."""
    from report_pages import make

    return make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def tab():
    """A tab of a browser."""
    from report_pages import CHROMIUM, browser

    with browser.open_chromium(str(CHROMIUM)) as tab:
        yield tab


@pytest.fixture
def page(tab, made):
    """The report in the tab, which must not log errors or request anything else."""
    tab.open(made.address)
    yield tab
    assert tab.problems == []
    assert tab.requests == [made.address]
