"""Bad input gets a typed error that names the argument, the value and the remedy."""

import functools
import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from shared import assert_refused

import gdkit
from gdkit import GdkitError, GdkitWarning, Plan, Problem, descend, problems, random_axes, sgd, static, sweep
from gdkit.optimizers import UNSUPPORTED, by_name

GOOD = {"learning_rate": [0.1, 0.2]}


def run(problem=None, optimizer=sgd, axes=GOOD, **settings):
    return sweep(problem or problems.parabola(), optimizer, axes, **{"steps": 5, **settings})


def branching(learning_rate, strength=1.0):
    return optax.sgd(learning_rate if strength > 0.5 else 0.0)


def growing(learning_rate):
    return optax.GradientTransformation(lambda params: jnp.zeros(2), lambda grads, state, params: (grads, jnp.zeros(3)))


def swallowing(learning_rate, **options):
    return sgd(learning_rate, momentum=options.get("momentum"))


BAD_LOSSES = {
    "not a scalar": (Problem(lambda x: x, jnp.ones(3)), r"loss=\(3,\): it does not return a scalar. Reduce it"),
    "not float": (Problem(lambda x: jnp.int32(1), 0.0), "loss='int32': it does not return a float"),
    "complex": (Problem(lambda x: x * 1j, 0.0), "loss='complex64': it does not return a float"),
    "constant": (Problem(lambda x: jnp.float32(1.0), 0.0), "it does not depend on the params"),
    "integer params": (Problem(lambda x: x**2.0, {"a": 3}), r"params\['a'\]=3: its dtype is int32"),
    "text params": (Problem(lambda x: x, {"a": "b"}), r"params\['a'\]='b': not a number or an array"),
    "no params": (Problem(lambda x: 1.0, {}), "params={}: it has no leaves"),
    "NaN at the start": (Problem(lambda x: jnp.log(x) * 0 + x, -1.0), "the loss is not finite at the start"),
    "no loss": (lambda: 3, "the factory returned no Problem"),
}


@pytest.mark.parametrize("name", BAD_LOSSES)
def test_bad_losses_and_params_are_refused(name):
    problem, match = BAD_LOSSES[name]
    assert_refused(lambda: run(problem), match)


BAD_AXES = {
    "empty": ({"learning_rate": []}, r"axes\['learning_rate'\]=\[\]: the axis is empty"),
    "duplicate": ({"learning_rate": [0.1, 0.2, 0.1]}, r"axes\['learning_rate'\]=0.1: this value occurs twice"),
    "negative": ({"learning_rate": [-0.1]}, r"=-0.1: a learning rate is not negative. Use gdkit.ascent"),
    "infinite": ({"learning_rate": [np.inf]}, "=inf: not finite. Remove it"),
    "NaN": ({"learning_rate": [np.nan]}, "=nan: not finite. Remove it"),
    "scalar": (
        {"learning_rate": 0.1},
        r"axes\['learning_rate'\]=0.1: an axis is a sequence of values. Put it in a list",
    ),
    "misspelt": ({"learning_rte": [0.1]}, r"'learning_rte': no such name. Did you mean 'learning_rate'\?"),
    "mixed": ({"momentum": [0.1, "a"], **GOOD}, "does not decide whether this axis is lanes or static"),
    "texts as lanes": ({"learning_rate": static([0.1]), "nesterov": [0.5, "x"]}, "gdkit.lanes.*gdkit.static"),
    "problem axis": ({"problem.center": [1.0], **GOOD}, "a finished Problem takes no hyperparameters"),
    "twice": ([GOOD, {"learning_rate": [0.1]}], None),
    "no optimizers": ({"optimizer": {}, **GOOD}, "labels are missing or occur twice"),
    "an optimizer alone in a tuple": ({"optimizer": {"a": (sgd,)}, **GOOD}, "not an optimizer with its own values"),
    "an optimizer with a number": ({"optimizer": {"a": (sgd, 3)}, **GOOD}, "not an optimizer with its own values"),
}


@pytest.mark.parametrize("name", [n for n in BAD_AXES if BAD_AXES[n][1]])
def test_bad_axes_are_refused(name):
    axes, match = BAD_AXES[name]
    with pytest.raises(GdkitError, match=match):
        run(axes=axes, optimizer=None if "optimizer" in axes else sgd)


def test_a_learning_rate_of_zero_is_allowed():
    assert run(axes={"learning_rate": [0.0]}).lanes["final_loss"].values[0] == 9.0


def test_integers_alone_are_lanes_for_float_parameters_and_static_for_others():
    ones = run(axes={"learning_rate": [1, 2]})
    assert ones.lanes["learning_rate"].dtype.kind == "f"
    with pytest.raises(GdkitError, match="integers for a parameter without annotation or default"):
        run(optimizer=lambda learning_rate, size: sgd(learning_rate * size), axes={**GOOD, "size": [1, 2]})


SETTINGS = {
    "steps": ({"steps": 0}, "steps=0: must be at least 1"),
    "fractional steps": ({"steps": 1.5}, "steps=1.5: not an integer"),
    "seeds": ({"seeds": 0}, "seeds=0: must be at least 1"),
    "curve_points": ({"curve_points": -1}, "curve_points=-1: must be at least 0"),
    "diverged_above": ({"diverged_above": 0.0}, "diverged_above=0.0: not positive"),
    "executor": ({"executor": "threads"}, "executor='threads': not an executor"),
    "problem": ({"problem": 3}, "problem=3: neither a Problem nor a factory"),
    "optimizer": ({"optimizer": 3}, "optimizer=3: not an optimizer factory"),
    "finished optimizer": ({"optimizer": optax.adam(0.1)}, "a finished optimizer takes no hyperparameters"),
    "both optimizers": ({"axes": {"optimizer": ["sgd"], **GOOD}}, "axes has an 'optimizer' axis as well"),
    "optimizer name": ({"optimizer": "adma"}, "'adma': no such name. Did you mean 'ada"),
    "missing argument": ({"axes": {"momentum": [0.5]}}, "missing 1 required positional argument: 'learning_rate'"),
    "state of another shape": ({"optimizer": growing}, "a step changes the structure or shapes of the state"),
    "returns nothing": (
        {"optimizer": lambda learning_rate: None},
        r"the factory did not return an \(init, update\) pair",
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_bad_settings_are_refused(name):
    settings, match = SETTINGS[name]
    with pytest.raises(GdkitError, match=match):
        run(**settings)


@pytest.mark.parametrize("field", ["width", "tile", "segment", "workers"])
def test_bad_plans_are_refused(field):
    with pytest.raises(GdkitError, match=rf"plan\.{field}=0: must be at least 1"):
        Plan(**{field: 0})


def test_a_factory_that_branches_on_a_traced_value_is_refused_with_static_as_the_remedy():
    with pytest.raises(GdkitError, match=r"it branches in Python on a traced value.*gdkit\.static"):
        run(optimizer=branching, axes={**GOOD, "strength": [0.1, 0.9]})
    assert run(optimizer=branching, axes={**GOOD, "strength": static([0.1, 0.9])}).lanes.sizes["lane"] == 4


def test_a_misspelt_name_behind_keywords_is_found_by_what_uses_it():
    with pytest.raises(GdkitError, match="'momentun': the factory takes it, and neither"):
        run(optimizer=swallowing, axes={**GOOD, "momentun": [0.1, 0.9]})
    assert run(optimizer=swallowing, axes={**GOOD, "momentum": [0.1, 0.9]}).lanes.sizes["lane"] == 4


def test_a_batch_whose_shape_changes_is_refused():
    sample = lambda key, t, data: data[: 2 + int(t)]
    problem = Problem(lambda x, b: jnp.mean((x - b) ** 2), 0.0, data=np.ones(8, np.float32), sample=sample)
    with pytest.raises((GdkitError, jax.errors.JAXTypeError)):
        run(problem)


def test_an_impure_loss_is_a_warning():
    problem = Problem(lambda x: (x - random.random()) ** 2, 0.0)
    with pytest.warns(GdkitWarning, match="loss: two traces of it differ"):
        run(problem)


def test_seeds_that_change_nothing_are_a_warning():
    with pytest.warns(GdkitWarning, match="seeds=3: neither the start nor the batches depend on the seed"):
        run(seeds=3)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_optimizers_that_cannot_be_driven_are_named_with_the_reason(name):
    with pytest.raises(GdkitError, match=UNSUPPORTED[name]):
        by_name(name)


def test_descend_refuses_hyperparameters_of_a_finished_optimizer():
    with pytest.raises(GdkitError, match=r"Pass the factory, for example optax\.adam"):
        descend(problems.parabola(), optax.adam(0.1), 5, hyperparameters={"learning_rate": 0.1})


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (1.0, 0.5), (-1.0, 1.0)])
def test_random_axes_need_positive_increasing_bounds(bounds):
    with pytest.raises(GdkitError, match="not two finite numbers 0 < low < high"):
        random_axes({"learning_rate": bounds}, 4)


WORDS = {
    "text as learning rate": ({"axes": {"learning_rate": ["0.1"]}}, r"axes\['learning_rate'\]='0.1': not a number"),
    "one monitor": ({"monitors": gdkit.monitors.time_to(0.1)}, r"monitors=Monitor.*: not a sequence of Monitors.*\["),
    "a stopping rule": ({"monitors": gdkit.monitors.patience(checks=3)}, "monitors=Monitor.*: not a sequence of Mon"),
    "a function as monitor": ({"monitors": [lambda state: state]}, "monitors=.*: not a Monitor"),
    "a loss that wants data": ({"problem": Problem(lambda p, b: p * b, 1.0)}, r"it cannot be called as loss\(params\)"),
    "a sample that wants less": (
        {"problem": Problem(lambda p, b: p * b, 1.0, data=1.0, sample=lambda key: 1.0)},
        r"it cannot be called as sample\(key, t, data\)",
    ),
    "number as store": ({"store": 3}, "store=3: not a path. Pass a string or a pathlib.Path"),
    "text as key": ({"key": "a"}, "key='a': neither an integer nor a JAX key"),
    "text as target": ({"target": "a"}, "target='a': not a number"),
    "number as progress": ({"progress": 3}, "progress=3: not a callback"),
    "list as axes": ({"axes": [0.1, 0.2]}, "axes=0.1: not a mapping"),
    "a loss with aux and a bare start": (
        {"problem": Problem(lambda x, batch, aux: (x**2, aux), 1.0, has_aux=True)},
        "init=1.0: has_aux is set, and it is not a pair of params and aux",
    ),
    "an axis that every optimizer fixes": (
        {"optimizer": None, "axes": {"optimizer": {"a": (sgd, {"learning_rate": 0.1})}, **GOOD}},
        "every optimizer has a fixed value for it",
    ),
}


@pytest.mark.parametrize("name", WORDS)
def test_values_of_the_wrong_kind_are_refused(name):
    settings, match = WORDS[name]
    with pytest.raises(GdkitError, match=match):
        run(**settings)


@pytest.mark.parametrize("path", [3, None, b"run", ["run"]])
def test_what_is_no_path_is_refused(path):
    result = gdkit.SweepResult.from_arrays(GOOD, {"loss": np.ones((2, 1))})
    match = "(path|folder)=.*: not a path. Pass a string or a pathlib.Path"
    takers = (gdkit.open, result.save, result.report, functools.partial(result.export, 0), result.log_to_tensorboard)
    for take in (*takers, gdkit.live.tensorboard):
        with pytest.raises(GdkitError, match=match):
            take(path)
