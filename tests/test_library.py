"""As a library gdkit is quiet: it prints nothing, writes nothing, and changes no setting of JAX."""

import subprocess
import sys

import pytest

import gdkit

SWEEP = """
import jax, numpy as np
settings = lambda: dict(jax.config.values)
before = settings()
import gdkit
from gdkit import problems
result = gdkit.sweep(problems.parabola(), gdkit.sgd, {"learning_rate": np.array([0.1, 1.2])}, steps=20)
result.recommend(), result.edge(), result.best(), result.to_dataframe()
gdkit.descend(problems.parabola(), gdkit.sgd(0.1), 5)
after = settings()
assert before == after, {n for n in before if before[n] != after[n]}
"""


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, **options)


def test_a_sweep_prints_nothing_writes_nothing_and_leaves_jax_as_it_was(tmp_path):
    done = python(SWEEP, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_importing_gdkit_imports_no_jax_and_no_matplotlib():
    done = python("import gdkit, sys; print({'jax', 'matplotlib', 'pandas', 'xarray'} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stderr


def test_every_public_name_resolves():
    for name in gdkit.__all__:
        assert getattr(gdkit, name) is not None
    assert set(gdkit.__all__) <= set(dir(gdkit))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        gdkit.no_such_name  # noqa: B018
