"""What the tests of several modules share."""

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from gdkit import GdkitError


def dense_hessian(problem, params, batch=None):
    """The Hessian of the loss, written down whole, (n, n) float64; on all the problem's data if no batch is given."""
    vector, unravel = ravel_pytree(params)
    rest = [data for data in (problem.data if batch is None else batch,) if data is not None]
    hessian = jax.hessian(lambda vector, *rest: problem.loss(unravel(vector), *rest))
    return np.asarray(jax.jit(hessian)(vector, *rest), np.float64)


def assert_refused(call, match):
    """That `call` raises an error of ours which says `match`, and which is one of Python's own kinds too."""
    with pytest.raises(GdkitError, match=match) as caught:
        call()
    assert isinstance(caught.value, ValueError | TypeError)
