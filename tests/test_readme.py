"""The README's code runs, and prints what the README says it prints."""

import importlib.util
import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_code_of_the_readme_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    with jax.numpy_rank_promotion("allow"):  # a reader has the default
        found = list(load(ROOT / "docs" / "readme.py").outputs(text))
    assert len(found) >= 6
    for said, now in found:
        assert NUMBER.sub("#", said) == NUMBER.sub("#", now), "run: make readme"
        numbers = ([float(n) for n in NUMBER.findall(part)] for part in (said, now))
        # other machines round differently, and near the edge of stability that grows
        assert next(numbers) == pytest.approx(next(numbers), rel=0.2), "run: make readme"
    assert (tmp_path / "final_loss.png").stat().st_size > 10_000


def test_figures_that_the_readme_shows_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (ROOT / path).stat().st_size > 10_000
