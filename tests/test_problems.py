"""Built-in problems and models on data, against finite differences, closed forms and NumPy by hand."""

import equinox as eqx
import flax.linen as linen
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from shared import dense_hessian, quick

from gdkit import problems
from gdkit.datasets import Dataset
from gdkit.environment import enable_x64
from gdkit.errors import GdkitError
from gdkit.problems import Problem, models

KEY = jax.random.key(0)
ANALYTIC = {
    "quadratic": lambda: problems.quadratic([1.0, 3.0, 10.0], start=[1.0, -2.0, 0.5]),
    "quadratic by condition number": lambda: problems.quadratic(dimension=5, condition_number=100.0, start=-1.5),
    "parabola": lambda: problems.parabola(start=-1.0),
    "rosenbrock": problems.rosenbrock,
    "himmelblau": lambda: problems.himmelblau(start=(0.3, -0.7)),
    "beale": lambda: problems.beale(start=(1.5, -0.7)),
}
HIMMELBLAU = [(3.0, 2.0), (-2.805118086952745, 3.131312518250573), (-3.779310253377747, -3.283185991286170)]
HIMMELBLAU += [(3.584428340330492, -1.848126526964404)]
MINIMA = [
    *((problems.himmelblau, x) for x in HIMMELBLAU),
    (problems.beale, (3.0, 0.5)),
    (problems.rosenbrock, (1.0, 1.0)),
    (lambda: problems.rosenbrock(a=-2.0, b=5.0), (-2.0, 4.0)),
    (problems.parabola, 3.0),
    (lambda: problems.parabola(center=-1.5), -1.5),
    (lambda: problems.quadratic([1.0, 2.0]), (0.0, 0.0)),
]


def toy(n=24, features=3, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, features)), np.arange(n) % classes


# --- analytic problems


@pytest.mark.parametrize("name", ANALYTIC)
def test_the_gradient_is_that_of_central_differences(name):
    with enable_x64():
        problem = ANALYTIC[name]()
        x = np.asarray(problem.init)
        steps = 1e-6 * np.eye(x.size).reshape(x.size, *x.shape)
        at = jax.jit(jax.value_and_grad(problem.loss))
        slopes = [(at(x + h)[0] - at(x - h)[0]) / 2e-6 for h in steps]
        assert np.allclose(np.ravel(at(x)[1]), slopes, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("factory", "x"), MINIMA)
def test_known_minima_have_the_optimum_no_slope_and_no_descent(factory, x):
    with enable_x64():
        problem, x = factory(), np.asarray(x)
        loss, slope = jax.jit(jax.value_and_grad(problem.loss))(x)
        assert abs(loss - problem.optimum) < 1e-20
        assert np.all(np.abs(slope) < 1e-10)
        assert np.linalg.eigvalsh(dense_hessian(problem, x)).min() > 0


def test_the_hessian_of_a_quadratic_has_the_eigenvalues():
    with enable_x64():
        given, spaced = problems.quadratic([4.0, -1.0, 0.5]), problems.quadratic(dimension=5, condition_number=1e4)
        assert np.allclose(np.linalg.eigvalsh(dense_hessian(given, given.init)), [-1.0, 0.5, 4.0])
        assert np.allclose(np.linalg.eigvalsh(dense_hessian(spaced, spaced.init)), [1, 10, 100, 1e3, 1e4])


def test_a_quadratic_has_an_optimum_unless_an_eigenvalue_is_negative():
    assert problems.quadratic([0.0, 1.0]).optimum == 0
    assert problems.quadratic([-1.0, 1.0]).optimum is None
    optima = jax.vmap(lambda eigenvalue: problems.quadratic(eigenvalue).optimum)(jnp.array([1.0, 0.0, -1.0]))
    assert np.array_equal(optima, [0.0, 0.0, np.nan], equal_nan=True)


def test_parabola_has_curvature_two_and_a_scalar_param():
    problem = problems.parabola()
    assert problem.init.shape == ()
    assert jax.jit(jax.value_and_grad(problem.loss))(problem.init) == (9, -6)
    assert dense_hessian(problem, problem.init) == 2


@pytest.mark.parametrize("name", ANALYTIC)
def test_params_are_numpy_of_the_default_float_dtype(name):
    assert type(ANALYTIC[name]().init) is np.ndarray
    loss_dtype = lambda problem: jax.eval_shape(problem.loss, problem.init).dtype
    assert ANALYTIC[name]().init.dtype == loss_dtype(ANALYTIC[name]()) == np.float32
    with enable_x64():
        assert ANALYTIC[name]().init.dtype == loss_dtype(ANALYTIC[name]()) == np.float64


# --- floats can be traced

TRACED = [
    (problems.quadratic, {"condition_number": 50.0}, {"dimension": 4}),
    (problems.quadratic, {"eigenvalues": 3.0, "start": 2.0}, {}),
    (problems.parabola, {"center": 2.0, "start": -1.0}, {}),
    (problems.rosenbrock, {"a": 2.0, "b": 10.0}, {}),
    (problems.himmelblau, {"start": 0.5}, {}),
    (problems.beale, {"start": 0.5}, {}),
    (problems.logistic_regression, {"l2": 0.5}, {"data": "iris"}),
    (problems.mlp, {"init_scale": 0.5}, {"data": "iris", "widths": (5,)}),
]


@pytest.mark.parametrize(("factory", "floats", "static"), quick(TRACED, TRACED[0], TRACED[2], TRACED[7]))
def test_a_traced_hyperparameter_gives_what_the_same_number_gives(factory, floats, static):
    def value_and_slope(floats, data):
        problem = factory(**floats, **static)
        params = problem.init(KEY) if problem.init_is_function else problem.init
        params = jax.tree.map(lambda leaf: leaf + 0.25, params)
        arguments = (params,) if data is None else (params, data)
        return jax.value_and_grad(problem.loss)(*arguments)

    data = factory(**floats, **static).data
    expected = jax.jit(lambda data: value_and_slope(floats, data))(data)
    lanes = jax.tree.map(lambda value: jnp.stack([value, 2 * value]), floats)
    traced = jax.jit(jax.vmap(value_and_slope, in_axes=(0, None)))(lanes, data)
    one, other = (jax.tree.map(lambda leaf, i=i: leaf[i], traced) for i in (0, 1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, expected)
    assert not np.allclose(other[0], expected[0])


def test_no_array_of_data_is_captured_by_the_program():
    problem = problems.mlp("digits", batch_size=8)
    jaxpr = jax.make_jaxpr(problem.loss)(problem.init(KEY), problem.data)
    assert sum(np.size(constant) for constant in jaxpr.consts) == 0
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves((problem.data, problem.validation, problem.test)))


# --- losses and metrics


def test_cross_entropy_is_the_formula():
    logits, labels = toy(8, 4)
    by_hand = -np.mean([row[k] - np.log(np.exp(row).sum()) for row, k in zip(logits, labels, strict=True)])
    assert np.allclose(problems.cross_entropy(jnp.asarray(logits), labels), by_hand)
    one = logits[:, 0]
    chance = 1 / (1 + np.exp(-one))
    binary = -np.mean(np.where(labels > 0, np.log(chance), np.log(1 - chance)))
    for shape in ((8,), (8, 1)):
        outputs = jnp.asarray(one.reshape(shape))
        assert np.allclose(problems.cross_entropy(outputs, (labels > 0).astype(int)), binary)


def test_squared_error_is_the_formula():
    outputs, labels = toy(8, 3)
    one_hot = np.eye(3)[labels]
    assert np.allclose(problems.squared_error(jnp.asarray(outputs), labels), ((outputs - one_hot) ** 2).sum(1).mean())
    targets = outputs[:, 0]
    assert np.allclose(problems.squared_error(jnp.zeros((8, 1)), jnp.asarray(targets)), (targets**2).mean())
    signs = np.where(labels > 0, 1, -1)
    assert np.allclose(problems.squared_error(jnp.asarray(targets), labels > 0), ((targets - signs) ** 2).mean())


def test_accuracy_and_r2_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, r2_score

    outputs, labels = toy(20, 3)
    assert np.allclose(problems.accuracy(jnp.asarray(outputs), labels), accuracy_score(labels, outputs.argmax(1)))
    single = outputs[:, :1]
    binary = labels > 0
    assert np.allclose(problems.accuracy(jnp.asarray(single), binary), accuracy_score(binary, single[:, 0] > 0))
    y = np.random.default_rng(1).normal(size=(20, 1))
    assert np.allclose(problems.r2(jnp.asarray(single), jnp.asarray(y)), r2_score(y, single), atol=1e-6)


# --- minibatches


def test_a_minibatch_is_a_function_of_key_and_step():
    problem = problems.mlp("iris", widths=(), batch_size=16)
    draw = jax.jit(problem.sample)
    x, y = draw(KEY, 3, problem.data)
    assert (x.shape, y.shape) == ((16, 4), (16,))
    assert np.array_equal(x, draw(KEY, 3, problem.data)[0])
    assert np.array_equal(x, problem.sample(KEY, 3, problem.data)[0])
    assert not np.array_equal(x, draw(KEY, 4, problem.data)[0])
    assert not np.array_equal(x, draw(jax.random.key(1), 3, problem.data)[0])


def test_minibatches_are_rows_of_the_data_and_reach_all_of_them():
    numbers = np.arange(10.0)
    sample = problems.minibatches(64)
    x, y = jax.vmap(sample, in_axes=(None, 0, None))(KEY, jnp.arange(5), (numbers, -numbers))
    assert x.shape == (5, 64)
    assert np.array_equal(x, -y)
    assert set(np.ravel(x)) == set(numbers)


# --- models on data


@pytest.mark.parametrize("data", ["breast_cancer", "iris"])
def test_logistic_regression_finds_what_scikit_learn_finds(data):
    from sklearn.linear_model import LogisticRegression

    l2 = 0.1
    with enable_x64():
        problem = problems.logistic_regression(data, l2=l2)
        x, y = problem.data
        peer = LogisticRegression(C=1 / (l2 * len(y)), tol=1e-10, max_iter=1000).fit(x, y)
        single = problem.init.weight.ndim == 1
        params = problems.Layer(
            peer.coef_[0] if single else peer.coef_.T, peer.intercept_[0 if single else slice(None)]
        )
        slopes = jax.jit(jax.grad(problem.loss))(params, problem.data)
        assert all(np.abs(slope).max() < 1e-5 for slope in jax.tree.leaves(slopes))
        assert np.allclose(problem.metrics["accuracy"](params, problem.test), peer.score(*problem.test))


def test_logistic_regression_starts_at_the_logarithm_of_the_classes():
    for data, classes in [("breast_cancer", 2), ("iris", 3), ("digits", 10)]:
        problem = problems.logistic_regression(data, l2=1.0)
        assert np.allclose(jax.jit(problem.loss)(problem.init, problem.data), np.log(classes), rtol=1e-5)


@pytest.mark.parametrize("activation", quick(sorted(models.ACTIVATIONS), "gelu", "relu", "tanh"))
def test_an_mlp_is_the_formula(activation):
    problem = problems.mlp("iris", widths=[5, 4], activation=activation, loss="squared_error")
    params = problem.init(KEY)
    x, y = problem.data
    h = x
    for layer in params[:-1]:
        h = np.asarray(models.ACTIVATIONS[activation][0](h @ layer.weight + layer.bias[None, :]))
    outputs = h @ params[-1].weight + params[-1].bias[None, :]
    assert np.allclose(problem.loss(params, problem.data), ((outputs - np.eye(3)[y]) ** 2).sum(1).mean(), rtol=1e-4)
    assert np.allclose(problem.metrics["accuracy"](params, (x, y)), (outputs.argmax(1) == y).mean())


@pytest.mark.parametrize(("activation", "variance"), [("relu", 2.0), ("tanh", 1.0)])
def test_initial_weights_have_the_variance_of_he_and_lecun(activation, variance):
    params = problems.mlp("digits", widths=(400, 400), activation=activation, init_scale=0.5).init(KEY)
    for layer, expected in zip(params, (variance, variance, 1.0), strict=True):
        assert np.allclose(layer.weight.var() * layer.weight.shape[0], 0.25 * expected, rtol=0.1)
        assert not layer.bias.any()


def test_an_mlp_takes_regressions_files_and_images(tmp_path):
    problem = problems.mlp("diabetes", widths=(8,))
    assert list(problem.metrics) == ["r2"]
    assert np.isfinite(problem.loss(problem.init(KEY), problem.data))
    images, labels = np.random.default_rng(0).normal(size=(12, 4, 4)), np.arange(12) % 3
    np.savez(tmp_path / "images.npz", x=images, y=labels)
    problem = problems.mlp({"file": str(tmp_path / "images.npz")}, widths=(8,))
    assert problem.init(KEY)[0].weight.shape == (16, 8)
    assert problem.name == "mlp on images"


def test_an_mlp_without_scale_is_dead():
    problem = problems.mlp("digits", init_scale=0.0)
    slopes = jax.jit(jax.grad(problem.loss))(problem.init(KEY), problem.data)
    assert not any(layer.weight.any() for layer in slopes)


def plain():
    return (
        lambda key: {"w": jax.random.normal(key, (3, 3)), "b": jnp.zeros(3)},
        lambda params, x: x @ params["w"] + params["b"][None, :],
    )


def plain_params():
    return {"w": np.ones((3, 3), np.float32)}, lambda params, x: x @ params["w"]


def flax_linen():
    model = linen.Dense(3)
    return lambda key: model.init(key, jnp.zeros((1, 3))), model.apply


def flax_nnx():
    graph = nnx.graphdef(nnx.Linear(3, 3, rngs=nnx.Rngs(0)))
    init = lambda key: nnx.state(nnx.Linear(3, 3, rngs=nnx.Rngs(key)))
    return init, lambda state, x: nnx.merge(graph, state)(x)


def equinox_partition():
    build = lambda key: eqx.nn.MLP(3, 3, 8, 1, key=key)
    static = eqx.partition(build(KEY), eqx.is_inexact_array)[1]
    return (
        lambda key: eqx.filter(build(key), eqx.is_inexact_array),
        lambda params, x: jax.vmap(eqx.combine(params, static))(x),
    )


def equinox_module():
    return eqx.nn.Linear(3, 3, key=KEY), lambda module, x: jax.vmap(module)(x)


def haiku_transform():
    model = haiku.without_apply_rng(haiku.transform(lambda x: haiku.Linear(3)(x)))
    return lambda key: model.init(key, jnp.zeros((1, 3))), model.apply


MODELS = [plain, plain_params, flax_linen, flax_nnx, equinox_partition, equinox_module, haiku_transform]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the model libraries themselves
@pytest.mark.parametrize(
    "model", quick(MODELS, plain, flax_linen, equinox_module, haiku_transform), ids=lambda model: model.__name__
)
def test_models_of_any_library_are_the_same_kind_of_problem(model):
    init, apply = model()
    problem = problems.supervised(init, apply, "cross_entropy", toy(), batch_size=4)
    assert problem.init_is_function == (model not in (plain_params, equinox_module))
    params = problem.init(KEY) if problem.init_is_function else problem.init
    batch = problem.sample(KEY, 0, problem.data)
    value, slopes = jax.jit(jax.value_and_grad(problem.loss))(params, batch)
    outputs = np.asarray(apply(params, batch[0]))
    by_hand = -np.mean([row[k] - np.log(np.exp(row).sum()) for row, k in zip(outputs, batch[1], strict=True)])
    assert np.allclose(value, by_hand, rtol=1e-4)
    assert jax.tree.structure(slopes) == jax.tree.structure(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert 0 <= problem.metrics["accuracy"](params, problem.validation) <= 1


def test_a_loss_and_metrics_of_ones_own_see_outputs_and_targets():
    x, _ = toy()
    problem = problems.supervised(
        {"w": np.ones(3, np.float32)},
        lambda params, x: x @ params["w"],
        lambda outputs, y: jnp.abs(outputs - y).max(),
        Dataset((x, x.sum(1)), test=(x[:2], x[:2].sum(1) + 1), task="regression", name="sums"),
        metrics={"bias": lambda outputs, y: jnp.mean(y - outputs)},
    )
    assert problem.validation is None
    assert problem.name == "sums"
    assert problem.loss(problem.init, problem.data) < 1e-5
    assert np.allclose(problem.metrics["bias"](problem.init, problem.test), 1.0)


def test_a_transformer_is_that_of_numpy_by_hand():
    x, y = toy(features=6)
    problem = problems.transformer((x, y), tokens=3, width=4, heads=2, depth=2, split=(0.5, 0.5))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, float), problem.init(KEY))
    normed = lambda h: (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    rows, labels = problem.data
    h = rows.reshape(-1, 3, 2) @ params.token + params.position
    for block in params.blocks:
        seen, n = np.zeros_like(h), normed(h)
        for own in (slice(0, 2), slice(2, 4)):  # the numbers of a head
            query, key, value = (n @ weight[:, own] for weight in block[:3])
            scores = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(2))
            seen[..., own] = scores / scores.sum(-1, keepdims=True) @ value
        h = h + seen @ block.out
        h = h + np.asarray(jax.nn.gelu(normed(h) @ block.up)) @ block.down
    logits = normed(h).mean(axis=1) @ params.head.weight + params.head.bias
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels])
    assert problem.loss(problem.init(KEY), problem.data) == pytest.approx(expected, rel=1e-5)
    assert np.allclose(np.std(problems.transformer(width=64).init(KEY).blocks[0].down), 1 / 16, rtol=0.05)


def test_names_are_callables_that_make_problems():
    assert "digits" in problems.data_names()
    needs = {"quadratic": {"eigenvalues": [1.0]}}
    for name, factory in problems.names().items():
        assert isinstance(factory(**needs.get(name, {})), Problem)


def test_an_equinox_module_is_params_though_it_can_be_called():
    module = eqx.nn.Linear(2, 1, key=KEY)
    assert not Problem(lambda m: jnp.sum(m.weight), module).init_is_function
    assert Problem(jnp.sum, jax.random.normal).init_is_function
    assert not Problem(jnp.sum, {"f": jnp.ones(2)}).init_is_function


# --- bad input


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: problems.transformer(tokens=3), "tokens=3: it does not divide the 64 features"),
        (lambda: problems.transformer(heads=3), "heads=3: it does not divide the 16 numbers"),
        (lambda: problems.transformer(depth=0), "depth=0: must be at least 1"),
        (lambda: problems.transformer(width=8.0), "width=8.0: not an integer"),
        (lambda: problems.quadratic(), "eigenvalues=None: .* Pass either eigenvalues, or dimension"),
        (lambda: problems.quadratic([1.0], dimension=2), r"eigenvalues=\[1.0\]: .* Pass either eigenvalues"),
        (lambda: problems.quadratic(dimension=2), "condition_number=None"),
        (lambda: problems.quadratic(condition_number=2.0), "dimension=None"),
        (lambda: problems.quadratic(dimension=0, condition_number=2.0), "dimension=0: must be at least 1"),
        (lambda: problems.quadratic(dimension=2.5, condition_number=2.0), "dimension=2.5: not an integer"),
        (
            lambda: problems.quadratic(dimension=2, condition_number=0.5),
            "condition_number=0.5: must be .* of at least 1",
        ),
        (lambda: problems.quadratic(dimension=2, condition_number="a"), "condition_number='a': not a number"),
        (lambda: problems.quadratic([]), r"eigenvalues=\[\]: of shape \(0,\)"),
        (lambda: problems.quadratic([[1.0]]), "eigenvalues=.*of shape"),
        (lambda: problems.quadratic(["a"]), "eigenvalues=.*not numbers"),
        (lambda: problems.quadratic([1.0, float("inf")]), "eigenvalues=.*not finite"),
        (
            lambda: problems.quadratic([1.0, 2.0], start=[1.0, 2.0, 3.0]),
            r"start=.*of shape \(3,\). Pass one number, or 2",
        ),
        (lambda: problems.parabola(center=float("nan")), "center=nan: must be a finite number"),
        (lambda: problems.parabola(center=10**400), "center=.*: must be a finite number"),
        (lambda: problems.quadratic([10**400]), "eigenvalues=.*: not numbers"),
        (lambda: problems.quadratic([1e300]), "eigenvalues=.*: not finite in float32"),
        (lambda: problems.parabola(start=[1.0]), r"start=\[1.0\]: not a number"),
        (lambda: problems.rosenbrock(b=-1.0), "b=-1.0: must be .* of at least 0"),
        (lambda: problems.rosenbrock(start=(1.0, 2.0, 3.0)), "start="),
        (lambda: problems.logistic_regression("diabetes"), "data='diabetes': logistic regression needs classes"),
        (lambda: problems.logistic_regression(l2=-1.0), "l2=-1.0: must be .* of at least 0"),
        (lambda: problems.logistic_regression("iriss"), "data='iriss'.*Did you mean 'iris'"),
        (lambda: problems.mlp(activation="rleu"), "activation='rleu': no such name. Did you mean 'relu'"),
        (lambda: problems.mlp(loss="cross_entrpy"), "loss='cross_entrpy': no such name. Did you mean 'cross_entropy'"),
        (lambda: problems.mlp("diabetes", loss="cross_entropy"), "loss='cross_entropy': the targets are not classes"),
        (lambda: problems.mlp(widths=(64, 0)), r"widths\[1\]=0: must be at least 1"),
        (lambda: problems.mlp(widths=(64, 1.5)), r"widths\[1\]=1.5: not an integer"),
        (lambda: problems.mlp(widths=64), "widths=64: not a sequence"),
        (lambda: problems.mlp(init_scale=-1.0), "init_scale=-1.0: must be .* at least 0"),
        (lambda: problems.mlp("iris", batch_size=0), "batch_size=0: must be at least 1"),
        (lambda: problems.mlp("iris", batch_size=106), "batch_size=106: more than the 105 rows"),
        (lambda: problems.mlp("iris", batch_size=2.5), "batch_size=2.5: not an integer"),
        (lambda: problems.mlp("iris", batch_size=True), "batch_size=True: not an integer"),
        (lambda: problems.mlp("iris", split=(0.5, 0.2)), "split=.*sum to 0.7"),
        (lambda: problems.mlp((np.ones((9, 2)), np.ones((9, 2, 2)))), "y has too many dimensions"),
        (lambda: problems.supervised(None, 3, "cross_entropy", "iris"), "apply=3: not callable"),
        (lambda: problems.supervised(None, len, len, "iris", metrics={"a": 1}), "metrics=.*not a mapping of functions"),
        (lambda: Problem(len, None, metrics=[len]), "metrics=.*not a mapping of functions"),
        (lambda: problems.minibatches(0), "batch_size=0: must be at least 1"),
        (lambda: Problem(max, 1.0, data={"x": ["a"]}), r"data\['x'\]\[0\]='a': not an array of numbers. Convert"),
        (lambda: Problem(max, 1.0, data=np.array(["a", "b"])), "data=array.*: not an array of numbers"),
        (
            lambda: Problem(max, 1.0, validation=(np.array([None]),)),
            r"validation\[0\]=array.*: not an array of",
        ),
        (lambda: Problem(max, 1.0, test=np.array(["2020-01-01"], "M8[D]")), "test=array.*: not an array of numbers"),
        (lambda: Problem(max, 1.0, maximize=["f1"]), "maximize='f1': nothing is evaluated under this name"),
    ],
)
def test_bad_input_is_an_error_with_the_remedy(call, match):
    with pytest.raises(GdkitError, match=match):
        call()


@pytest.mark.parametrize(("shape", "task"), [((2,), 0), ((), 0), ((1,), 0), ((2,), 1)])
def test_outputs_that_do_not_suit_the_data_are_an_error(shape, task):
    x, y = toy()
    data, loss = ((x, y), "cross_entropy") if task == 0 else ((x, x[:, 0]), "squared_error")
    problem = problems.supervised(np.zeros(shape), lambda w, x: jnp.zeros((len(x), *w.shape)), loss, data)
    with pytest.raises(GdkitError, match=r"apply=\(17.*: the shape of its outputs.*Return"):
        problem.loss(problem.init, problem.data)


def test_a_model_that_returns_more_than_outputs_is_an_error():
    problem = problems.supervised(np.zeros(3), lambda w, x: (x @ w, w), "cross_entropy", toy())
    with pytest.raises(GdkitError, match=r"apply=.*it did not return an array"):
        problem.loss(problem.init, problem.data)


@pytest.mark.parametrize(
    ("factory", "equal", "other"),
    [
        (
            problems.quadratic,
            {"eigenvalues": [1.0, 2.0], "start": (3.0, 1.0)},
            {"eigenvalues": [1, 2], "start": (3, 1)},
        ),
        (problems.parabola, {"center": 1.0}, {"center": 2.0}),
        (problems.mlp, {"data": "iris", "widths": [3]}, {"data": "iris", "widths": (3,)}),
    ],
    ids=["quadratic", "parabola", "mlp"],
)
def test_equal_calls_of_a_factory_share_a_problem_and_others_do_not(factory, equal, other):
    assert factory(**equal) is factory(**equal) is not factory(**other)
    with enable_x64():
        wide = factory(**equal)
    assert wide is not factory(**equal)


@pytest.mark.parametrize(
    "arguments", [{"center": np.float32(1)}, {"center": jnp.float32(1)}, {"start": np.zeros(())}], ids=str
)
def test_a_problem_of_arrays_is_made_anew(arguments):
    assert problems.parabola(**arguments) is not problems.parabola(**arguments)
