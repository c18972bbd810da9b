"""Names that users choose: monitors, metrics and axes may not take those of a result, and must fit into its files."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import Problem, descend, sgd, sweep
from gdkit.types import Monitor

PROBLEM = Problem(
    lambda x, b: jnp.sum((x - b) ** 2), jnp.zeros(2), data=jnp.ones(2), validation=jnp.ones(2), test=jnp.ones(2),
    metrics={"gap": lambda x, b: jnp.max(jnp.abs(x - b))},
)  # fmt: skip


def reads(*names, value=0.0):
    """A monitor that reads a constant under names."""
    return Monitor(lambda state: jnp.asarray(value), lambda m, *_: m, lambda m: dict.fromkeys(names, m))


def run(*monitors, axes=None, problem=PROBLEM):
    return sweep(problem, sgd, axes or {"learning_rate": [0.1]}, steps=3, monitors=monitors)


@pytest.mark.parametrize("name", [
    "final_loss", "initial_loss", "end_step", "update_norm", "reversal",  # statistics
    "optimum", "reference_loss", "curve_loss", "stochastic", "regime",  # what the result derives
    "validation_loss", "test_loss", "validation_gap", "test_gap",  # evaluations
    "learning_rate", "seed", "lane", "point", "curve_step", "optimizer",  # axes, coordinates and dimensions
])  # fmt: skip
def test_a_monitor_may_not_take_the_name_of_anything_else_in_a_result(name):
    with pytest.raises(gdkit.GdkitError, match=f"monitors='{name}': a statistic, an axis or a dimension"):
        run(reads(name))


@pytest.mark.parametrize("monitors", [
    (reads("depth"), reads("depth")),
    (reads("depth", "width"), reads("height", "width")),
    (gdkit.monitors.time_to(0.1), gdkit.monitors.time_to(0.1)),
    (reads("slope", value=np.zeros(3)), reads("slope_1")),
    (reads("slope_1"), reads("slope", value=np.zeros(3))),
])  # fmt: skip
def test_two_monitors_may_not_read_the_same_name_or_dimension(monitors):
    with pytest.raises(gdkit.GdkitError, match=r"monitors='(depth|width|time_to_0\.1|slope_1)': another monitor reads"):
        run(*monitors)
    with pytest.raises(gdkit.GdkitError, match="another monitor reads this name"):
        descend(PROBLEM, sgd(0.1), 3, monitors=monitors)


@pytest.mark.parametrize("name", ["val/loss", "/", "", " ", "late ", "a\nb", "a\0b", ".", "..", "\ud800", 3, None])
def test_a_name_that_files_cannot_hold_is_refused_before_the_run(name):
    for call in (lambda: run(reads(name)), lambda: descend(PROBLEM, sgd(0.1), 3, monitors=[reads(name, "fine")])):
        with pytest.raises(gdkit.GdkitError, match=r"monitors=.*(a file cannot hold|not a string)"):
            call()
    with pytest.raises(gdkit.GdkitError, match=r"metrics=.*(a file cannot hold|not a string)"):
        Problem(jnp.sum, jnp.zeros(2), metrics={name: lambda x, data: 0.0})


def test_descend_refuses_the_names_of_statistics_and_a_read_without_names():
    for name in ("final_loss", "end_kind", "stochastic"):
        with pytest.raises(gdkit.GdkitError, match=f"monitors='{name}'"):
            descend(PROBLEM, sgd(0.1), 3, monitors=[reads(name)])
    with pytest.raises(gdkit.GdkitError, match=r"monitors=.*read does not return a mapping"):
        descend(PROBLEM, sgd(0.1), 3, monitors=[reads()._replace(read=lambda m: m)])


def test_a_metric_may_not_be_called_loss():
    with pytest.raises(gdkit.GdkitError, match="metrics='loss': validation_loss is the loss itself"):
        Problem(jnp.sum, jnp.zeros(2), metrics={"loss": lambda x, data: 0.0})


def seeded(learning_rate, seed=0.0):
    return optax.sgd(learning_rate * (1 + seed))


@pytest.mark.parametrize("name", ["seed", "lane", "final_loss"])
def test_an_axis_may_not_take_the_name_of_a_coordinate_or_a_statistic(name):
    factory = lambda learning_rate, **others: seeded(learning_rate, **others)
    factory = seeded if name == "seed" else lambda learning_rate, **others: seeded(learning_rate, others[name])
    with pytest.raises(gdkit.GdkitError, match=f"axes='{name}': a statistic or a dimension"):
        sweep(PROBLEM, factory, {"learning_rate": [0.1], name: [0.0, 1.0]}, steps=3)


@pytest.mark.full
def test_other_names_are_stored_and_read_again(tmp_path):
    names = ("late_loss", "λ max", "2nd", "a.b", "slope-1", "validation_best")
    plain = run()
    result = run(reads(*names, value=2.0), reads("slope", value=np.arange(3.0)))
    result.save(tmp_path / "kept.nc")
    sweep(PROBLEM, sgd, {"learning_rate": [0.1]}, steps=3, monitors=[reads(*names, value=2.0)], store=tmp_path / "run")
    for lanes in (gdkit.open(tmp_path / "kept.nc").lanes, gdkit.open(tmp_path / "run").lanes):
        assert [float(lanes[name].values[0]) for name in names] == [2.0] * len(names)
    assert result.lanes["final_loss"].equals(plain.lanes["final_loss"])
