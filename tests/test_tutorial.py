"""The tutorial's code runs, and prints what the tutorial says it prints."""

import importlib.util
import re
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parent.parent
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the tutorial says, and what its code prints now, block by block."""
    text = (ROOT / "docs" / "derivatives.md").read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp("tutorial")
    with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):  # a reader has the default
        patch.chdir(folder)
        blocks = list(load(ROOT / "docs" / "readme.py").outputs(text))
    plt.close("all")
    assert (folder / "tangent.png").stat().st_size > 10_000
    return blocks


def test_code_of_the_tutorial_prints_what_it_says(found):
    assert len(found) >= 18
    for said, now in found:
        assert said.strip(), "an output is missing"
        assert NUMBER.sub("#", said) == NUMBER.sub("#", now)
        numbers = ([float(n) for n in NUMBER.findall(part)] for part in (said, now))
        assert next(numbers) == pytest.approx(next(numbers), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    "claim",
    [
        r"1 \| +7 \| +1\n +0\.01 \| +6\.01 \| +0\.01\n +0\.001 \| +6\.001 \| +0\.001\njax\.grad \| +6",
        "f     = 0.85\n∂f/∂c = 1.6\n∂f/∂d = 2\n",
        "3.0 × 2.0 = 6.0",
        r"y\(1\) = 9, y\(1\.001\) = 9\.012004, slope 12\.004, derivative 12\n",
        "the walk back: 1 → 6 → 6 → 12\n",
        r"\['weights'\]: WRONG",
        r"\['bias'\]: right",
    ],
)
def test_the_lesson_prints_its_numbers(found, claim):
    assert any(re.search(claim, now) for _, now in found)
