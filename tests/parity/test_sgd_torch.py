"""gdkit's optimizers and gradients against PyTorch's, from equal weights on equal batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gdkit
from gdkit import problems

STEPS = 100
RATE = 0.05
VARIANTS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
}
# Of the largest param after 100 steps. What is left in float64 is the order of sums.
TOLERANCE = {"float32": 1e-4, "float64": 1e-11}


@pytest.fixture(autouse=True)
def one_thread(torch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _trained_by_gdkit(factory, hyperparameters):
    """The start, every batch, the losses and the params at the end, all in NumPy."""
    problem = problems.mlp("digits", widths=(64, 64), batch_size=128)
    key = jax.random.key(0)
    init_key, sample_key = jax.random.split(key)
    start = problem.init(init_key)
    batches = jax.jit(jax.vmap(problem.sample, in_axes=(None, 0, None)))(sample_key, jnp.arange(STEPS), problem.data)
    run = gdkit.descend(problem, factory, STEPS, hyperparameters=hyperparameters, key=key)
    return jax.tree.map(np.asarray, (start, batches, run.loss[:-1], run.params))


def _trained_by_torch(torch, start, batches, make):
    """The losses and the params of the same network, trained by PyTorch alone."""
    model = _torch_mlp(torch, start)
    optimizer = make(model.parameters())
    losses = []
    for x, y in zip(*batches, strict=True):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y).long())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    linear = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    return losses, [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in linear]


def _torch_mlp(torch, layers):
    modules = []
    for weight, bias in layers:
        linear = torch.nn.Linear(*weight.shape, dtype=torch.tensor(weight).dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(weight.T))
            linear.bias.copy_(torch.tensor(bias))
        modules += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])


def _assert_same_run(ours, theirs, dtype):
    (loss, params), (torch_loss, torch_params) = ours, theirs
    np.testing.assert_allclose(loss, torch_loss, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    for layer, torch_layer in zip(params, torch_params, strict=True):
        for leaf, torch_leaf in zip(layer, torch_layer, strict=True):
            assert leaf.dtype == torch_leaf.dtype == dtype
            np.testing.assert_allclose(leaf, torch_leaf, rtol=0, atol=TOLERANCE[dtype] * np.abs(torch_leaf).max())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variant", VARIANTS)
def test_sgd_on_the_digits_mlp_equals_torch(torch, variant, dtype):
    with jax.enable_x64(dtype == "float64"):
        chosen = VARIANTS[variant]
        start, batches, *ours = _trained_by_gdkit(gdkit.sgd, {"learning_rate": RATE} | chosen)
        assert [layer.weight.shape for layer in start] == [(64, 64), (64, 64), (64, 10)]
        make = lambda parameters: torch.optim.SGD(parameters, lr=RATE, **chosen)
        _assert_same_run(ours, _trained_by_torch(torch, start, batches, make), dtype)
        assert ours[0][-10:].mean() < 0.5 * ours[0][0]  # it went somewhere


def test_adam_on_the_digits_mlp_equals_torch(torch):
    with jax.enable_x64(True):  # at the start adam divides by gradients near zero, which float32 does not bear
        start, batches, *ours = _trained_by_gdkit(optax.adam, {"learning_rate": 1e-3})
        make = lambda parameters: torch.optim.Adam(parameters, lr=1e-3, eps=1e-8)
        loss, params = ours
        torch_loss, torch_params = _trained_by_torch(torch, start, batches, make)
        np.testing.assert_allclose(loss, torch_loss, rtol=1e-8)
        for layer, torch_layer in zip(params, torch_params, strict=True):
            for leaf, torch_leaf in zip(layer, torch_layer, strict=True):
                np.testing.assert_allclose(leaf, torch_leaf, rtol=0, atol=1e-7)


# Gradients of the built-in problems, each loss written anew in PyTorch


def _quadratic(torch):
    eigenvalues = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)
    return problems.quadratic([0.5, 2.0, 8.0]), lambda x: 0.5 * torch.sum(eigenvalues * x**2)


def _parabola(torch):
    return problems.parabola(center=3.0), lambda x: (x - 3.0) ** 2


def _rosenbrock(torch):
    return problems.rosenbrock(), lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def _himmelblau(torch):
    return problems.himmelblau(), lambda x: (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def _beale(torch):
    return problems.beale(), lambda x: sum(
        (c - x[0] * (1 - x[1] ** k)) ** 2 for k, c in ((1, 1.5), (2, 2.25), (3, 2.625))
    )


@pytest.mark.parametrize("make", [_quadratic, _parabola, _rosenbrock, _himmelblau, _beale])
def test_gradients_of_analytic_problems_equal_autograd(torch, make):
    with jax.enable_x64(True):
        problem, torch_loss = make(torch)
        for seed in range(5):
            at = np.random.default_rng(seed).normal(size=np.shape(problem.init))
            x = torch.tensor(at, requires_grad=True)
            torch_loss(x).backward()
            np.testing.assert_allclose(jax.grad(problem.loss)(jnp.asarray(at)), x.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("data", ["breast_cancer", "iris"])
def test_gradients_of_logistic_regression_equal_autograd(torch, data, l2):
    with jax.enable_x64(True):
        problem = problems.logistic_regression(data, l2=l2)
        rng = np.random.default_rng(0)
        params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), problem.init)
        x, y = (torch.tensor(np.asarray(leaf)) for leaf in problem.data)
        weight, bias = (torch.tensor(leaf, requires_grad=True) for leaf in params)
        logits = x @ weight + bias
        functional = torch.nn.functional
        if data == "breast_cancer":
            loss = functional.binary_cross_entropy_with_logits(logits, y.double())
        else:
            loss = functional.cross_entropy(logits, y.long())
        loss = loss + 0.5 * l2 * (weight**2).sum()
        loss.backward()
        ours, gradient = jax.value_and_grad(problem.loss)(params, problem.data)
        np.testing.assert_allclose(ours, loss.item(), rtol=1e-12)
        np.testing.assert_allclose(gradient.weight, weight.grad.numpy(), rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(gradient.bias, bias.grad.numpy(), rtol=1e-10, atol=1e-14)


def test_gradients_of_the_digits_mlp_equal_autograd(torch):
    with jax.enable_x64(True):
        problem = problems.mlp("digits", widths=(64, 64))
        params = problem.init(jax.random.key(1))
        model = _torch_mlp(torch, jax.tree.map(np.asarray, params))
        x, y = (torch.tensor(np.asarray(leaf)) for leaf in problem.data)
        torch.nn.functional.cross_entropy(model(x), y.long()).backward()
        linear = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
        for ours, theirs in zip(jax.grad(problem.loss)(params, problem.data), linear, strict=True):
            np.testing.assert_allclose(ours.weight, theirs.weight.grad.numpy().T, rtol=1e-9, atol=1e-14)
            np.testing.assert_allclose(ours.bias, theirs.bias.grad.numpy(), rtol=1e-9, atol=1e-14)
