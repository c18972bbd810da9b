"""μP has the multipliers of the paper's table and learns alike at every width; claims can fail."""

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
    "widths": [32, 512],
    "batch_size": 32,
    "steps": 20,
    "seeds": 2,
    "adam": {"from": 2e-3, "to": 0.064, "count": 6},
    "sgd": {"from": 0.1, "to": 1.6, "count": 5},
    "check": {"steps": 3, "seeds": 2},
}
KEY = jax.random.key(0)


def shapes(width, inputs=5, outputs=3):
    """Params of a network, all ones."""
    sizes = ((inputs, width), (width, width), (width, outputs))
    return tuple(Layer(jnp.ones(size), jnp.ones(size[1])) for size in sizes)


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
    params = shapes(12)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose([-float(layer.weight.max()) for layer in updates], weights, rtol=1e-6)
    np.testing.assert_allclose([-float(layer.bias.max()) for layer in updates], biases, rtol=1e-6)


def test_at_the_base_width_nothing_changes():
    scaled, plain = optimizers.mup(optax.adam, shapes(4), "adam")(learning_rate=0.1), optax.adam(0.1)
    grads = jax.tree.map(lambda leaf: leaf * 0.3, shapes(4))
    found = [optimizer.update(grads, optimizer.init(grads), grads)[0] for optimizer in (scaled, plain)]
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
        (lambda: plots.coordinate_check([8], np.ones((1, 2, 2)), labels=["a"]), "labels=.*there are 2 layers"),
    ],
)
def test_bad_arguments_are_named(call, match):
    assert_refused(call, match)


def update(base):
    optimizer = optimizers.mup(sgd, base, "sgd")(learning_rate=1.0)
    return optimizer.update(shapes(8), optimizer.init(shapes(8)))


# --- the study


def test_every_claim_holds(result):
    assert len(study.claims(result)) == 9
    for claim in study.claims(result):
        assert claim.holds, claim


def test_claims_fail_where_the_parametrisations_are_exchanged(result):
    other = {study.STANDARD: study.MUP, study.MUP: study.STANDARD}
    swap = lambda found: {(optimizer, other[kind]): value for (optimizer, kind), value in found.items()}
    wrong = result._replace(runs=swap(result.runs), changes=swap(result.changes))
    assert not any(claim.holds for claim in study.claims(wrong)[1:])


def test_every_layer_moves_as_much_at_every_width(result):
    for optimizer in study.FACTORIES:
        changes = result.changes[optimizer, study.MUP].mean(axis=1)  # (widths, layers)
        assert np.all(np.abs(np.log(changes[-1] / changes[0])) < np.log(2)), changes  # at 16 times the width
        standard = result.changes[optimizer, study.STANDARD].mean(axis=1)
        assert standard[-1, -1] > 6 * standard[0, -1]


def test_printed_table_has_a_line_an_optimizer_and_parametrisation(result):
    rows = [row.split(" | ") for row in str(result).splitlines()[3:]]
    assert [(row[0].strip(), row[1].strip()) for row in rows] == list(result.runs)


def test_figure_shows_losses_and_coordinate_checks(result):
    figures = study.plot(result)
    assert {name: type(figure) for name, figure in figures.items()} == {"learning_rate_transfer": Figure}
    axes = figures["learning_rate_transfer"].axes
    assert len(axes) == 8
    assert [text.get_text() for text in figures["learning_rate_transfer"].legends[0].texts] == ["width 32", "width 512"]
    assert [ax.get_title() for ax in axes[:2]] == ["adam, standard", "adam, μP"]


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
