"""Comparisons with PyTorch. A test takes the fixture `torch`; without PyTorch it is skipped."""

import importlib.util
import warnings
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REASON = "PyTorch is not installed; `make parity` installs it"


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.parity)
            if importlib.util.find_spec("torch") is None:
                item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.fixture(scope="session")
def torch():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch says while it is imported is not ours to fix
        return pytest.importorskip("torch", reason=REASON)
