"""μP has the multipliers of the paper's table and learns alike at every width; claims can fail."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.figure import Figure
from shared import assert_refused

from experiments import learning_rate_transfer as study
from gdkit import optimizers, plots, problems, sgd
from gdkit.errors import InputTypeError, InputValueError
from gdkit.problems import Layer

TINY = {
    "widths": [32, 256],
    "batch_size": 32,
    "steps": 20,
    "seeds": 2,
    "adam": {"from": 1e-3, "to": 0.128, "count": 8},
    "sgd": {"from": 0.05, "to": 3.2, "count": 7},
    "check": {"steps": 3, "seeds": 4},
}
KEY = jax.random.key(0)


def shapes(width, inputs=5, outputs=3):
    """Params of a network, all ones."""
    sizes = ((inputs, width), (width, width), (width, outputs))
    return tuple(Layer(np.ones(size, np.float32), np.ones(size[1], np.float32)) for size in sizes)


@functools.partial(jax.jit, static_argnums=0)
def first_update(optimizer, grads):
    """The first update at params that equal their gradients, as one program."""
    return optimizer.update(grads, optimizer.init(grads), grads)[0]


@pytest.fixture(scope="module")
def result():
    return study.run(TINY)


# --- the library's part


@pytest.mark.parametrize(
    ("rule", "weights", "biases"),  # of first, hidden and last layer, three times as wide as the base
    [("adam", (1, 1 / 3, 1 / 3), (1, 1, 1)), ("sgd", (3, 1, 1 / 3), (3, 3, 1))],
)
def test_multipliers_are_those_of_table_three(rule, weights, biases):
    optimizer = optimizers.mup(sgd, shapes(4), rule)(learning_rate=1.0)
    updates = first_update(optimizer, shapes(12))
    np.testing.assert_allclose([-float(np.max(layer.weight)) for layer in updates], weights, rtol=1e-6)
    np.testing.assert_allclose([-float(layer.bias.max()) for layer in updates], biases, rtol=1e-6)


def test_at_the_base_width_nothing_changes():
    scaled, plain = optimizers.mup(optax.adam, shapes(4), "adam")(learning_rate=0.1), optax.adam(0.1)
    grads = jax.tree.map(lambda leaf: leaf * np.float32(0.3), shapes(4))
    found = [first_update(optimizer, grads) for optimizer in (scaled, plain)]
    assert all(map(np.array_equal, *map(jax.tree.leaves, found)))


def test_the_last_layer_starts_at_zero_and_the_others_as_ever():
    make = lambda **options: problems.mlp("iris", widths=(8, 8), **options).init(KEY)
    (*hidden, last), (*usual, _) = make(zero_last=True), make()
    assert not last.weight.any()
    assert all(map(np.array_equal, *map(jax.tree.leaves, (hidden, usual))))


def test_layers_and_their_changes_are_those_of_numpy_by_hand():
    params, x = problems.mlp("iris", widths=(6,)).init(KEY), np.linspace(-1, 1, 20).reshape(5, 4).astype(np.float32)
    history = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    (w1, _), (w2, _) = ((np.asarray(layer.weight), layer.bias) for layer in params)
    hidden = x @ w1
    out = np.maximum(hidden, 0) @ w2
    made = problems.mlp_layers(params, x)
    np.testing.assert_allclose(made[0], hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made[1], out, rtol=1e-5, atol=1e-6)
    expected = [[0, 0], [np.abs(hidden).mean(), 3 * np.abs(out).mean()]]  # twice as much, and four times
    np.testing.assert_allclose(problems.layer_changes(problems.mlp_layers, history, x), expected, rtol=1e-5, atol=1e-6)


def test_coordinate_check_draws_a_line_a_layer():
    changes = np.arange(1.0, 13.0).reshape(3, 2, 2)
    ax = plots.coordinate_check([8, 16, 32], changes, labels=["first", "last"], ax=Figure().subplots())
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines[:2]], changes.mean(axis=1).T)
    assert [text.get_text() for text in ax.get_legend().texts] == ["first", "last"]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: optimizers.mup(sgd, shapes(4), "adm"), "rule='adm'.*Did you mean 'adam'"),
        (lambda: update(shapes(4)[:2]), "base=.*its structure is not that of the params"),
        (lambda: update(jax.tree.map(jnp.sum, shapes(4))), r"base=\(\): a leaf of the params is of shape \(5, 8\)"),
        (lambda: plots.coordinate_check([8, 16], np.ones((3, 2, 2))), r"changes=\(3, 2, 2\): not .widths.*2 rows"),
        (lambda: plots.coordinate_check([8], np.ones((1, 2, 2)), labels=["a"]), "labels=.*1 label for 2 layers"),
    ],
)
def test_bad_arguments_are_named(call, match):
    assert_refused(call, match)


def update(base):
    optimizer = optimizers.mup(sgd, base, "sgd")(learning_rate=1.0)
    return optimizer.update(shapes(8), optimizer.init(shapes(8)))


# --- inputs and outputs of a leaf


def factors(base, wide, rule, axes=None):
    """What the steps of each leaf are multiplied by."""
    ones = lambda shapes: jax.tree.map(
        lambda shape: np.ones(shape, np.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple) and isinstance(x[0], int),
    )
    optimizer = optimizers.mup(sgd, ones(base), rule, axes=axes)(learning_rate=1.0)
    updates = first_update(optimizer, ones(wide))
    return jax.tree.map(lambda update: -float(np.min(update)), updates)


def layer(kernel, bias, names=("kernel", "bias")):
    return dict(zip(names, (kernel, bias), strict=True))


KERNELS = {  # base, wide, ratios of inputs and outputs
    "flax first": (layer((5, 8), (8,)), layer((5, 32), (32,)), 1, 4),
    "flax last": (layer((8, 3), (3,)), layer((32, 3), (3,)), 4, 1),
    "torch first": (layer((8, 5), (8,), ("weight", "bias")), layer((32, 5), (32,), ("weight", "bias")), 1, 4),
    "torch last": (layer((3, 8), (3,), ("weight", "bias")), layer((3, 32), (3,), ("weight", "bias")), 4, 1),
    "torch, one output": (layer((1, 8), (1,), ("weight", "bias")), layer((1, 32), (1,), ("weight", "bias")), 4, 1),
    "pair": (((8, 6), (6,)), ((16, 24), (24,)), 2, 4),
    "hidden, without bias": ({"w": (8, 8)}, {"w": (32, 32)}, 4, 4),
    "nothing grows": ({"w": (3, 4, 5)}, {"w": (3, 4, 5)}, 1, 1),
    "convolution": ({"w": (3, 3, 8, 16)}, {"w": (3, 3, 32, 64)}, 4, 4),
    "convolution of pixels": (layer((3, 3, 1, 8), (8,)), layer((3, 3, 1, 32), (32,)), 1, 4),
    "equinox convolution": (layer((8, 3, 5, 5), (8, 1, 1)), layer((32, 3, 5, 5), (32, 1, 1)), 1, 4),
    "query of flax": (layer((8, 2, 4), (2, 4)), layer((32, 4, 8), (4, 8)), 4, 4),
    "output of flax": (layer((2, 4, 8), (8,)), layer((4, 8, 32), (32,)), 4, 4),
}


@pytest.mark.parametrize("name", KERNELS)
def test_inputs_and_outputs_are_found_by_comparison(name):
    base, wide, inputs, outputs = KERNELS[name]
    for rule, kernel, bias in (("adam", 1 / inputs, 1), ("sgd", outputs / inputs, outputs)):
        found = factors(base, wide, rule)
        values = list(found.values()) if isinstance(found, dict) else list(found)
        expected = [kernel, bias] if not isinstance(found, dict) or len(found) == 1 else None
        expected = expected or [bias if key == "bias" else kernel for key in found]
        np.testing.assert_allclose(values, expected[: len(values)], rtol=1e-6)


DECLARED = {  # base, wide, axes, factor with adam
    "text": ({"a": (5, 8), "b": (8, 3), "c": (8,)}, {"a": (5, 32), "b": (32, 3), "c": (32,)}, "io", (1, 1 / 4, 1)),
    "other text": (
        {"a": (5, 8), "b": (8, 3), "c": (8,)},
        {"a": (5, 32), "b": (32, 3), "c": (32,)},
        "oi",
        (1 / 4, 1, 1),
    ),
    "attention": (
        {"a": (8, 2, 4), "b": (2, 4, 8), "c": (2, 4, 10)},
        {"a": (32, 8, 4), "b": (8, 4, 32), "c": (8, 16, 10)},
        {"a": "ioo", "b": "iio", "c": "iio"},
        (1 / 4, 1 / 4, 1 / 16),
    ),
    "prefix": (
        {"a": {"v": (8, 5), "w": (3, 8)}, "b": (8, 8)},
        {"a": {"v": (32, 5), "w": (3, 32)}, "b": (32, 32)},
        {"a": "oi", "b": ""},
        (1, 1 / 4, 1 / 4),
    ),
}


@pytest.mark.parametrize("name", DECLARED)
def test_declared_axes_decide(name):
    base, wide, axes, expected = DECLARED[name]
    np.testing.assert_allclose(jax.tree.leaves(factors(base, wide, "adam", axes)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("base", "wide"),
    [
        ({"w": (5, 8)}, {"w": (5, 32)}),
        ({"w": (8, 6)}, {"w": (16, 24)}),
        ({"norm": (8,), "out": (8, 3)}, {"norm": (32,), "out": (32, 3)}),
        ({"w": (2, 4, 10)}, {"w": (8, 16, 10)}),
        ({"v": (5, 8), "w": (8, 3), "bias": (8,)}, {"v": (5, 32), "w": (32, 3), "bias": (32,)}),
    ],
)
def test_leaves_that_do_not_tell_inputs_from_outputs_are_refused(base, wide):
    assert_refused(lambda: factors(base, wide, "adam"), "base=.*does not tell inputs from outputs.*axes=")


def test_axes_that_do_not_fit_are_refused():
    base, wide = {"w": (5, 8)}, {"w": (5, 32)}
    assert_refused(lambda: factors(base, wide, "adam", "ix"), "axes='ix': not a text of the letters")
    assert_refused(lambda: factors(base, wide, "adam", {"w": "ioo"}), r"axes='ioo': the leaf \['w'\] has 2 dimensions")
    assert_refused(lambda: factors(base, wide, "adam", {"v": "io"}), "axes=.*not a prefix of that of base")


# --- the study


@pytest.mark.full
def test_every_claim_holds(result):
    assert len(study.claims(result)) == 9
    for claim in study.claims(result):
        assert claim.holds, claim


@pytest.mark.full
def test_claims_fail_where_the_parametrisations_are_exchanged(result):
    other = {study.STANDARD: study.MUP, study.MUP: study.STANDARD}
    swap = lambda found: {(optimizer, other[kind]): value for (optimizer, kind), value in found.items()}
    wrong = result._replace(runs=swap(result.runs), changes=swap(result.changes))
    assert not any(claim.holds for claim in study.claims(wrong)[1:])


@pytest.mark.full
def test_every_layer_moves_as_much_at_every_width(result):
    for optimizer in study.FACTORIES:
        changes = result.changes[optimizer, study.MUP].mean(axis=1)  # (widths, layers)
        assert np.all(np.abs(np.log(changes[-1] / changes[0])) < np.log(2)), changes  # at 8 times the width
        standard = result.changes[optimizer, study.STANDARD].mean(axis=1)
        assert standard[-1, -1] > 4 * standard[0, -1]


@pytest.mark.full
def test_printed_table_has_a_line_an_optimizer_and_parametrisation(result):
    rows = [row.split(" | ") for row in str(result).splitlines()[3:]]
    assert [(row[0].strip(), row[1].strip()) for row in rows] == list(result.runs)


@pytest.mark.full
def test_figure_shows_losses_and_coordinate_checks(result):
    figures = study.plot(result)
    assert {name: type(figure) for name, figure in figures.items()} == {"learning_rate_transfer": Figure}
    axes = figures["learning_rate_transfer"].axes
    assert len(axes) == 8
    assert [text.get_text() for text in figures["learning_rate_transfer"].legends[0].texts] == ["width 32", "width 256"]
    assert [ax.get_title() for ax in axes[:2]] == ["(a) adam, standard", "(b) adam, μP"]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"width": [8]}, InputValueError, "Did you mean 'widths'"),
        ({"widths": [64, 64]}, InputValueError, r"settings.widths=\[64, 64\]: no width to transfer to"),
        ({"widths": [64, 0]}, InputValueError, r"settings.widths\[1\]=0"),
        ({"seeds": "3"}, InputTypeError, "settings.seeds='3'"),
    ],
)
def test_bad_settings_are_named(settings, error, said):
    with pytest.raises(error, match=said):
        study.run(settings)
