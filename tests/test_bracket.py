"""Axes that are extended until the best value lies inside them."""

import numpy as np
import optax
import pytest

import gdkit
from gdkit import problems, sgd
from gdkit.app.cli import main
from gdkit.errors import InputValueError

QUADRATIC = problems.quadratic((1.0, 4.0))  # the edge is at 2/4


def bracketed(rates, **options):
    """The axis of an extended sweep, and its best value."""
    result = gdkit.sweep(QUADRATIC, sgd, {"learning_rate": rates}, steps=6, until_bracketed=True, **options)
    return result.axes["learning_rate"], result.best().hyperparameters["learning_rate"]


@pytest.mark.parametrize(
    "rates", [[1e-4, 1e-3], [0.05, 0.1, 0.15], [0.05], [2.0, 4.0, 8.0], [0.6, 0.7], [0.45, 0.48]],
    ids=["below", "below, linear", "one value", "all diverge", "all diverge, linear", "above, linear"],
)  # fmt: skip
def test_the_best_value_lies_inside_the_axis(rates):
    axis, best = bracketed(rates)
    assert axis[0] < best < axis[-1]
    assert set(rates) <= set(axis)
    loss = (1 - axis) ** 12 + 4 * (1 - 4 * axis) ** 12  # after 6 steps, twice the loss
    assert best == axis[np.argmin(loss)]


def test_an_axis_that_holds_its_best_value_is_not_extended():
    assert bracketed([0.1, 0.3, 0.6])[0].tolist() == [0.1, 0.3, 0.6]


def test_the_extended_sweep_has_the_values_of_one_sweep_of_all_values():
    axis, _ = bracketed([1e-3, 1e-2])
    extended = gdkit.sweep(QUADRATIC, sgd, {"learning_rate": [1e-3, 1e-2]}, steps=60, until_bracketed=True)
    whole = gdkit.sweep(QUADRATIC, sgd, {"learning_rate": axis}, steps=60)
    np.testing.assert_allclose(extended.lanes["final_loss"], whole.lanes["final_loss"], rtol=1e-5)
    np.testing.assert_array_equal(extended.regimes, whole.regimes)
    assert extended.extend(80).lanes.attrs["steps"] == 80


@pytest.mark.full
def test_each_optimizer_is_extended_where_its_axis_needs_it(tmp_path):
    own = {
        "sgd": (sgd, {"momentum": [0.0, 0.5], "learning_rate": [1e-3, 1e-2]}),
        "adam": (optax.adam, {"learning_rate": [0.01, 0.1, 0.9, 9.0]}),
    }
    arguments = {"problem": QUADRATIC, "optimizer": None, "axes": {"optimizer": own}, "steps": 60}
    arguments |= {"until_bracketed": True}
    result = gdkit.sweep(**arguments, store=tmp_path / "run")
    assert len(result.select(optimizer="sgd").axes["learning_rate"]) > 2
    assert len(result.select(optimizer="adam").axes["learning_rate"]) == 4
    for other in (gdkit.open(tmp_path / "run"), gdkit.sweep(**arguments, store=tmp_path / "run")):
        assert other.grids == result.grids
        for name, column in result.lanes.data_vars.items():
            np.testing.assert_array_equal(other.lanes[name], column, err_msg=str(name))


@pytest.mark.parametrize(
    "axes", [gdkit.paired({"learning_rate": [0.1, 0.2], "momentum": [0.0, 0.5]}), {"nesterov": [True, False]}]
)
def test_an_axis_that_cannot_be_extended_is_refused(axes):
    factory = lambda learning_rate=0.1, momentum=0.5, nesterov=False: optax.sgd(learning_rate, momentum, nesterov)
    with pytest.raises(InputValueError, match="until_bracketed=True: there is no axis"):
        gdkit.sweep(QUADRATIC, factory, axes, steps=3, until_bracketed=True)


CONFIG = """
name: short
problem: {name: quadratic, eigenvalues: [1.0, 4.0]}
optimizer: {name: sgd}
sweep: {axes: {learning_rate: [1.0e-3, 1.0e-2]}, steps: 60, until_bracketed: true}
"""


@pytest.mark.full
def test_a_config_is_extended_and_its_command_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.yaml").write_text(CONFIG)
    assert main(["run", "short.yaml"]) == 0
    first = capsys.readouterr()
    assert "the best value is at the end of its axis" in first.err
    result = gdkit.open("runs/short")
    axis = result.axes["learning_rate"]
    assert len(axis) > 2
    assert len(result.refine(around="best", count=3).axes["learning_rate"]) == len(axis) + 3
    assert result.replay(1).lane == 1
    assert main(["run", "short.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == first.out.splitlines()[1:]  # the first one has the seconds
    assert main(["status", "runs/short"]) == 0
    assert "extended-1: " in capsys.readouterr().out
