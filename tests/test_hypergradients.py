"""Hypergradients equal closed forms and finite differences in flat memory, and tuning by them finds the best."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import assert_refused, quick

from gdkit import Problem, descend, hypergradient, problems, sgd, sweep, tune, value_and_hypergradient
from gdkit.binding import get_arrays
from gdkit.environment import enable_x64
from gdkit.hypergradients import FRACTIONS, final_loss_map


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.7])
def test_hypergradient_of_a_quadratic_is_the_closed_form(rate):
    curvature, steps = 2.0, 12
    slopes = hypergradient(problems.quadratic([curvature]), sgd, {"learning_rate": rate}, steps)
    exact = -(curvature**2) * steps * (1 - rate * curvature) ** (2 * steps - 1)  # of ½ λ (1 − ηλ)²ᵀ
    np.testing.assert_allclose(slopes["learning_rate"], exact, rtol=1e-4, atol=1e-12)


RUNS = {
    "heavy ball": (problems.rosenbrock, sgd, {"learning_rate": 1e-3, "momentum": 0.8}),
    "nesterov": (problems.rosenbrock, sgd, {"learning_rate": 1e-3, "momentum": 0.8, "nesterov": True}),
    "adam": (problems.himmelblau, optax.adam, {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99}),
    "problem": (None, sgd, {"learning_rate": 0.1, "problem.center": 2.0}),
}


@pytest.mark.parametrize("name", quick(RUNS, "heavy ball", "adam", "problem"))
def test_hypergradients_equal_central_differences_in_float64(name):
    make, factory, hyperparameters = RUNS[name]
    with enable_x64():
        problem = problems.parabola if make is None else make()
        end = lambda h: descend(problem, factory, 20, hyperparameters=h).loss[-1]
        slopes = hypergradient(problem, factory, hyperparameters, 20)
        assert set(slopes) == {n for n, v in hyperparameters.items() if not isinstance(v, bool)}
        for n, slope in slopes.items():
            step = 1e-6 * hyperparameters[n]
            high, low = (float(end(hyperparameters | {n: hyperparameters[n] + s * step})) for s in (1, -1))
            assert slope.dtype == jnp.float64
            np.testing.assert_allclose(slope, (high - low) / (2 * step), rtol=1e-5)


def test_memory_of_a_hypergradient_does_not_depend_on_steps():
    problem = problems.quadratic(dimension=10_000, condition_number=10.0)

    def memory(steps):
        program = jax.jit(lambda rate: hypergradient(problem, sgd, {"learning_rate": rate}, steps))
        return program.lower(0.01).compile().memory_analysis().temp_size_in_bytes

    assert memory(10) == memory(10_000) < 20 * 40_000, "bytes; a copy of the params has 40,000"


def test_one_program_serves_the_hypergradients_of_every_value_and_number_of_steps():
    traced = []
    problem = Problem(lambda x: (traced.append(1), x**2)[1], 1.0)
    hypergradient(problem, sgd, {"learning_rate": 0.1}, 5)
    before, counts = len(traced), []
    for rate, steps in ((0.2, 5), (np.float32(0.3), 6), (0.4, 5000)):
        hypergradient(problem, sgd, {"learning_rate": rate}, steps)
        counts.append(len(traced))
    inspections = counts[0] - before  # the loss is looked at for bad input, and not compiled
    assert np.diff([before, *counts]).tolist() == [inspections] * 3 and inspections < before


def network(**options):
    """Digits in a network small enough to run in an instant."""
    return problems.mlp(widths=[8], activation="tanh", split=(0.2, 0.4, 0.4), **options)


@pytest.mark.full
@pytest.mark.parametrize("batch_size", quick([None, 16], 16))
def test_a_hypergradient_forward_equals_the_one_back_through_descend(batch_size):
    problem = network(batch_size=batch_size)
    end = lambda rate: descend(problem, sgd, 15, hyperparameters={"learning_rate": rate}, key=3).loss[-1]
    loss, slopes = value_and_hypergradient(problem, sgd, {"learning_rate": 0.2}, 15, key=3)
    np.testing.assert_allclose(loss, end(0.2), rtol=1e-5)
    np.testing.assert_allclose(slopes["learning_rate"], jax.grad(end)(0.2), rtol=1e-3)


@pytest.mark.full
def test_lanes_of_vmap_equal_runs_made_one_by_one():
    problem, rates = network(), jnp.array([0.01, 0.1, 1.0, 3.0])
    at = lambda rate: value_and_hypergradient(problem, sgd, {"learning_rate": rate}, 10)
    losses, slopes = jax.vmap(at)(rates)
    alone = [at(rate) for rate in rates]
    np.testing.assert_allclose(losses, [loss for loss, _ in alone], rtol=1e-4)
    np.testing.assert_allclose(slopes["learning_rate"], [s["learning_rate"] for _, s in alone], rtol=1e-3, atol=1e-5)


def test_a_run_ends_where_a_lane_of_a_sweep_does():
    curvature, rate = 2.0, 3.0  # each step multiplies the loss by (1 − ηλ)² = 25
    problem = problems.quadratic([curvature])
    loss, slopes = value_and_hypergradient(problem, sgd, {"learning_rate": rate}, 10_000)
    lane = sweep(problem, sgd, {"learning_rate": [rate]}, steps=10_000).data.squeeze()
    end = int(lane["end_step"])
    assert end < 20 and np.isfinite(loss)
    np.testing.assert_allclose(loss, lane["final_loss"], rtol=1e-5)
    np.testing.assert_allclose(loss, 0.5 * curvature * (1 - rate * curvature) ** (2 * end), rtol=1e-5)
    slope = -(curvature**2) * end * (1 - rate * curvature) ** (2 * end - 1)
    np.testing.assert_allclose(slopes["learning_rate"], slope, rtol=1e-5)


def test_a_run_that_is_not_finite_ends_there():
    problem = Problem(lambda x: jnp.log(x), 1.0)  # x − η/x falls below 0
    loss, slopes = value_and_hypergradient(problem, sgd, {"learning_rate": 0.4}, 10)
    assert not np.isfinite(loss) and np.isnan(slopes["learning_rate"])


def test_a_start_that_is_a_hyperparameter_moves_the_run():
    run = {"learning_rate": 0.1, "problem.start": 1.0}
    loss, slopes = value_and_hypergradient(problems.parabola, sgd, run, 3)
    np.testing.assert_allclose(loss, 0.8**6 * (1.0 - 3.0) ** 2, rtol=1e-5)
    np.testing.assert_allclose(slopes["problem.start"], 0.8**6 * 2 * (1.0 - 3.0), rtol=1e-5)
    starts = np.array([0.0, 1.0, 2.0])
    swept = sweep(problems.parabola, sgd, {"learning_rate": [0.1], "problem.start": starts}, steps=3)
    np.testing.assert_allclose(swept.data["final_loss"].values.ravel(), 0.8**6 * (starts - 3) ** 2, rtol=1e-5)


def test_the_map_to_the_final_loss_takes_steps_as_they_come():
    problem = problems.parabola()
    end = lambda steps: final_loss_map(problem, sgd)(
        {"learning_rate": 0.25}, steps, jax.random.key(0), get_arrays(problem)
    )
    np.testing.assert_allclose(jax.vmap(end)(jnp.arange(1, 5)), 9 * 0.25 ** np.arange(1, 5), rtol=1e-6)


# tune


def brute_force(eigenvalues, steps):
    """The learning rate whose final loss from ones is least, on a fine grid, by the closed form."""
    rates, curvatures = np.linspace(1e-3, 2 / max(eigenvalues), 200_001), np.array(eigenvalues)
    losses = 0.5 * np.sum(curvatures * (1 - rates[:, None] * curvatures) ** (2 * steps), axis=1)
    return rates[np.argmin(losses)], losses.min()


@pytest.mark.parametrize("start", quick([1e-4, 0.3, 0.49], 1e-4))
@pytest.mark.parametrize(
    ("eigenvalues", "steps"), [([4.0], 2), ([1.0, 4.0], 3), ([1.0, 4.0], 20), ([1.0, 2.0, 4.0], 8)]
)
def test_tuning_finds_the_best_learning_rate_of_a_quadratic(eigenvalues, steps, start):
    tuned = tune(problems.quadratic(eigenvalues), sgd, {"learning_rate": start}, steps, rounds=30)
    best, least = brute_force(eigenvalues, steps)
    assert tuned.hyperparameters["learning_rate"] == pytest.approx(best, rel=2e-2 if len(eigenvalues) == 1 else 1e-3)
    assert tuned.final_loss <= least * 1.001 + 1e-9


def test_the_best_learning_rate_of_many_steps_is_two_over_the_sum_of_the_extreme_curvatures():
    tuned = tune(problems.quadratic([1.0, 3.0]), sgd, {"learning_rate": 0.01}, 60, rounds=30)
    assert tuned.hyperparameters["learning_rate"] == pytest.approx(2 / (1 + 3), rel=0.01)


def test_momentum_tuned_too_beats_the_best_learning_rate_alone():
    problem, start = problems.quadratic([1.0, 100.0]), {"learning_rate": 1e-3, "momentum": 0.1}
    alone = tune(problem, sgd, start, 50)
    both = tune(problem, sgd, start, 50, names=["learning_rate", "momentum"], rounds=60)
    assert both.final_loss < 0.01 * alone.final_loss
    assert alone.hyperparameters["momentum"] == 0.1 < both.hyperparameters["momentum"] < 1


def test_tuning_mends_a_learning_rate_that_is_too_small_for_digits():
    problem = network()
    tuned = tune(problem, sgd, {"learning_rate": 1e-3}, 40, rounds=12)
    first = tuned.history[0]
    assert tuned.final_loss < 0.2 * first.final_loss
    assert tuned.hyperparameters["learning_rate"] > 100 * first.hyperparameters["learning_rate"]


def test_the_loss_of_a_tuning_is_the_mean_over_the_seeds_of_a_sweep():
    problem = network()
    tuned = tune(problem, sgd, {"learning_rate": 0.1}, 5, rounds=1, seeds=3, key=4)
    lanes = sweep(problem, sgd, {"learning_rate": [0.1]}, steps=5, seeds=3, key=4).data["final_loss"]
    np.testing.assert_allclose(tuned.history[0].final_loss, lanes.mean(), rtol=1e-5)


STARTS = {
    "flat": (problems.quadratic([1.0]), sgd, {"learning_rate": 1.0}),
    "catapult": (problems.rosenbrock(), sgd, {"learning_rate": 5e-3}),
    "diverging": (problems.quadratic([1.0, 4.0]), sgd, {"learning_rate": 0.7}),
    "ended early": (problems.quadratic([1.0, 4.0]), sgd, {"learning_rate": 2.0}),
    "adam": (problems.himmelblau(), optax.adam, {"learning_rate": 3.0, "eps_root": 1e-12}),
    "problem": (problems.parabola, sgd, {"learning_rate": 0.9, "problem.center": 2.0}),
}


@pytest.mark.parametrize("name", STARTS)
def test_tuning_never_returns_worse_than_it_began_with(name):
    problem, factory, start = STARTS[name]
    tuned = tune(problem, factory, start, 30, rounds=10)
    losses = [seen.final_loss for seen in tuned.history]
    assert tuned.final_loss == np.nanmin(losses) <= losses[0] and len(losses) <= 11
    assert set(tuned.hyperparameters) == set(start)
    if name in ("diverging", "ended early"):
        assert tuned.final_loss < 1e-3


def test_tuning_steps_back_from_a_loss_that_is_not_finite():
    tuned = tune(Problem(lambda x: x - jnp.log(x), 3.0), sgd, {"learning_rate": 0.05}, 3, rate=6.0)
    losses = [seen.final_loss for seen in tuned.history]
    assert np.isnan(losses[1]) and tuned.final_loss == pytest.approx(1.0, abs=1e-3)


def test_one_program_serves_every_round_of_every_tuning():
    traced = []
    problem = Problem(lambda x: (traced.append(1), x**2)[1], 1.0)
    tune(problem, sgd, {"learning_rate": 0.01}, 5, rounds=1)
    first = len(traced)
    tune(problem, sgd, {"learning_rate": 0.02}, 7, rounds=10)
    assert len(traced) - first < first, "only what looks for bad input"


def test_a_tuning_prints_a_row_a_round():
    tuned = tune(problems.quadratic([1.0, 4.0]), sgd, {"learning_rate": 0.01, "momentum": 0.5}, 5, rounds=3)
    head, _, *rows = str(tuned).splitlines()
    assert [c.strip() for c in head.split("|")] == [
        "round", "learning_rate", "final loss", "slope in log learning_rate", "better"
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == ["0", "1", "2", "3"] and rows[0].endswith("yes")


def test_slopes_of_a_tuning_are_in_the_coordinates_it_moves_in():
    start, names = {"learning_rate": 0.1, "momentum": 0.5}, ("learning_rate", "momentum")
    problem = problems.quadratic([1.0])
    seen = tune(problem, sgd, start, 4, names=names, rounds=1).history
    slopes = hypergradient(problem, sgd, start, 4)
    assert seen[0].slope["learning_rate"] == pytest.approx(0.1 * float(slopes["learning_rate"]), rel=1e-5)
    assert seen[0].slope["momentum"] == pytest.approx(0.5 * 0.5 * float(slopes["momentum"]), rel=1e-5)
    logit = lambda p: math.log(p / (1 - p))
    moved = seen[1].hyperparameters
    assert abs(math.log(moved["learning_rate"] / 0.1)) == pytest.approx(1.0)
    assert abs(logit(moved["momentum"])) == pytest.approx(1.0) and "momentum" in FRACTIONS


# bad input


def trial(hyperparameters=None, steps=2, **options):
    return lambda: tune(problems.parabola(), sgd, hyperparameters or {"learning_rate": 0.1}, steps, **options)


BAD = {
    "steps": (lambda: hypergradient(problems.parabola(), sgd, {"learning_rate": 0.1}, 0), "steps=0: must be at"),
    "name": (lambda: hypergradient(problems.parabola(), sgd, {"rate": 0.1}, 2), "'rate': no such name"),
    "NaN": (
        lambda: hypergradient(problems.parabola(), sgd, {"learning_rate": math.nan}, 2),
        r"hyperparameters\['learning_rate'\]=nan: must be a finite number",
    ),
    "nothing": (
        lambda: hypergradient(problems.parabola(), lambda: sgd(0.1), {}, 2),
        "hyperparameters={}: none of them has a derivative. Pass at least one float",
    ),
    "finished": (
        lambda: hypergradient(problems.parabola(), sgd(0.1), {"learning_rate": 0.1}, 2),
        "a finished optimizer takes no",
    ),
    "without derivative": (
        lambda: hypergradient(
            Problem(lambda p: p["a"] ** 2 + p["b"] ** 2, {"a": 1.0, "b": 0.0}), optax.adam, {"learning_rate": 0.1}, 2
        ),
        r"hyperparameters\['learning_rate'\]=0.1: the final loss has no derivative with.*Optimizers.*eps_root > 0",
    ),
    "tune steps": (trial(steps=0), "steps=0: must be at least 1"),
    "tune rounds": (trial(rounds=0), "rounds=0: must be at least 1"),
    "tune seeds": (trial(seeds=1.5), "seeds=1.5: not an integer"),
    "tune rate": (trial(rate=0.0), "rate=0.0: must be a finite number above 0"),
    "tune rate text": (trial(rate="big"), "rate='big': not a number. Pass a finite number above 0"),
    "tune a name": (trial(names="learning_rate"), "names='learning_rate': not a sequence of names. Pass for example"),
    "tune no name": (trial(names=()), r"names=\(\): not a sequence of names"),
    "tune twice": (trial(names=("learning_rate",) * 2), "a name occurs twice. Pass each once"),
    "tune unknown": (trial(names=("learningrate",)), r"names='learningrate'.*Did you mean 'learning_rate'\?"),
    "tune static": (
        trial({"learning_rate": 0.1, "nesterov": True}, names=("nesterov",)),
        r"hyperparameters\['nesterov'\]=True: it is static and has no derivative. Tune floats only",
    ),
    "tune negative": (trial({"learning_rate": -0.1}), r"hyperparameters\['learning_rate'\]=-0.1: not above 0. Start"),
    "tune momentum": (
        trial({"learning_rate": 0.1, "momentum": 1.0}, names=("momentum",)),
        r"hyperparameters\['momentum'\]=1.0: not between 0 and 1. Start with a number between 0 and 1",
    ),
    "tune NaN": (
        trial({"learning_rate": math.nan}),
        r"hyperparameters\['learning_rate'\]=nan: must be a finite number",
    ),
    "tune what diverges": (
        lambda: tune(Problem(jnp.log, 1.0), sgd, {"learning_rate": 0.4}, 10),
        "hyperparameters={'learning_rate': 0.4}: the run diverges there. Start with hyperparameters",
    ),
    "tune without derivative": (
        lambda: tune(
            Problem(lambda p: p["a"] ** 2 + p["b"] ** 2, {"a": 1.0, "b": 0.0}), optax.adam, {"learning_rate": 0.1}, 2
        ),
        r"hyperparameters\['learning_rate'\]=0.1: the final loss has no derivative with.*Optimizers.*eps_root > 0",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_with_its_remedy(name):
    assert_refused(*BAD[name])
