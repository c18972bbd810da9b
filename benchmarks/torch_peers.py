"""The same runs in PyTorch, from the same start on the same rows: a loop over learning rates, or torch.func over lanes.

Without PyTorch there are none. The rows of a batch are drawn beforehand, so their random numbers cost PyTorch nothing.
"""

import functools
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import Peer, on_accelerator, space_lanes, start_of
from benchmarks.timing import seconds
from benchmarks.workloads import HEADS, LENGTH, WIDTH, Workload
from gdkit.sweeps.plan.shapes import count_visible_cores

Loss = Callable[..., Any]  # (params, x, y) -> scalar tensor


def is_installed() -> bool:
    return importlib.util.find_spec("torch") is not None


def peers(work: Workload) -> list[Peer]:
    """A loop over learning rates with autograd, and all lanes at once by torch.func.vmap."""
    if not is_installed():
        return []
    torch = _torch()
    given = _given(torch, work)
    few = space_lanes(len(work.rates), max(1, work.some // 4))
    every = np.arange(len(work.rates))
    loop = functools.partial(_loop, torch, work, given)
    over = functools.partial(_over_lanes, torch, work, given)
    return [
        _on_best_threads(torch, "PyTorch, loop over learning rates", loop, few),
        _on_best_threads(torch, "PyTorch, torch.func.vmap over lanes", over, every),
    ]


@functools.cache
def _torch() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of PyTorch's import concern nobody here
        import torch
        import torch.func

        if on_accelerator():
            torch.set_default_device("cuda")
        return torch


def _on_best_threads(torch: Any, title: str, run: Callable, lanes: np.ndarray) -> Peer:
    """With one thread or all cores, whichever is faster."""

    def run_threads(threads: int, steps: int | None = None) -> np.ndarray:
        torch.set_num_threads(threads)
        return run(lanes, steps)

    counts = [1] if on_accelerator() else sorted({1, count_visible_cores()})
    run_threads(counts[0], 2)  # warm
    best = min(counts, key=lambda count: seconds(lambda: run_threads(count, 20)))
    where = "on the accelerator" if on_accelerator() else f"threads {best}"
    return Peer(title, "bare", lambda: run_threads(best), lanes, where)


def chunks(work: Workload, key: int, size: int) -> Callable[[float], Iterator[float]]:
    """``rate -> validation losses``, one every `size` steps of a run."""
    torch = _torch()
    given = _given(torch, work, key)
    x, y = work.problem.validation
    validation = torch.tensor(x), torch.tensor(y).long()

    def score(rate: float) -> Iterator[float]:
        params = [p.clone().requires_grad_() for p in given.params]
        optimizer = torch.optim.SGD(params, lr=rate)
        for t in range(work.steps):
            optimizer.zero_grad()
            given.loss(params, *_batch(given, t)).backward()
            optimizer.step()
            if (t + 1) % size == 0:
                with torch.no_grad():
                    yield given.loss(params, *validation).item()

    return score


# --- runs


class Given(NamedTuple):
    """The start and the data as tensors."""

    params: list[Any]
    data: tuple[Any, ...]  # x, y; () without data
    rows: Any  # (steps + 1, rows of a batch), or None for all of them
    loss: Loss


def _given(torch: Any, work: Workload, key: int = 0) -> Given:
    start, problem = start_of(work, key), work.problem
    make, loss = MODELS[work.name]
    params = [torch.tensor(np.array(x)) for x in make(jax.tree.map(np.asarray, start.params))]
    if problem.data is None:
        return Given(params, (), None, functools.partial(loss, torch))
    x, y = problem.data
    data = torch.tensor(x), torch.tensor(y).long()
    rows = None
    if problem.sample is not None:
        draw = jax.jit(jax.vmap(lambda t: problem.sample(start.key, t, jnp.arange(len(y)))))
        rows = torch.tensor(np.array(draw(jnp.arange(work.steps + 1)))).long()
    return Given(params, data, rows, functools.partial(loss, torch))


def _batch(given: Given, t: int) -> tuple[Any, ...]:
    return given.data if given.rows is None else tuple(a[given.rows[t]] for a in given.data)


def _loop(torch: Any, work: Workload, given: Given, lanes: np.ndarray, steps: int | None) -> np.ndarray:
    steps = work.steps if steps is None else min(steps, work.steps)
    final = []
    for rate in work.rates[lanes].tolist():
        params = [p.clone().requires_grad_() for p in given.params]
        optimizer = torch.optim.SGD(params, lr=rate)
        losses = []
        for t in range(steps):
            optimizer.zero_grad()
            loss = given.loss(params, *_batch(given, t))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        with torch.no_grad():
            losses.append(given.loss(params, *_batch(given, steps)))
        final.append(_statistics(torch, torch.stack(losses))["final_loss"])
    return torch.stack(final).cpu().numpy()


def _over_lanes(torch: Any, work: Workload, given: Given, lanes: np.ndarray, steps: int | None) -> np.ndarray:
    steps = work.steps if steps is None else min(steps, work.steps)
    rates = torch.tensor(work.rates[lanes])
    params = [p.expand(len(rates), *p.shape).clone() for p in given.params]
    rates = [rates.reshape(-1, *(1 for _ in p.shape)) for p in given.params]
    over = (0, *(None for _ in given.data))
    step = torch.func.vmap(torch.func.grad_and_value(given.loss), in_dims=over)
    least = torch.full((len(lanes),), torch.inf)
    for t in range(steps):
        grads, loss = step(params, *_batch(given, t))
        least = torch.minimum(least, loss)
        params = [p - rate * g for p, rate, g in zip(params, rates, grads, strict=True)]
    return torch.func.vmap(given.loss, in_dims=over)(params, *_batch(given, steps)).cpu().numpy()


def _statistics(torch: Any, losses: Any) -> dict[str, Any]:
    """Statistics of one lane."""
    bad = ~torch.isfinite(losses)
    return {"final_loss": losses[-1], "min_loss": losses.min(), "end_step": torch.argmax(bad.int())}


# --- models: how the params are laid out, and the loss


def _leaves(params: Any) -> list[np.ndarray]:
    return jax.tree.leaves(params)


def _scalar(torch: Any, params: list, *_: Any) -> Any:
    return torch.square(params[0] - 3.0)


def _mlp(torch: Any, params: list, x: Any, y: Any) -> Any:
    *hidden, weight, bias = params
    for w, b in zip(hidden[::2], hidden[1::2], strict=True):
        x = torch.relu(torch.nn.functional.linear(x, w.mT, b))
    return torch.nn.functional.cross_entropy(torch.nn.functional.linear(x, weight.mT, bias), y)


def _logistic(torch: Any, params: list, x: Any, y: Any) -> Any:
    weight, bias = params
    return torch.nn.functional.binary_cross_entropy_with_logits(x @ weight + bias, y.float())


def _cnn_params(params: Any) -> list[np.ndarray]:
    """Channels first, as in PyTorch."""
    weight = params.weight.reshape(4, 4, 16, 10).transpose(2, 0, 1, 3).reshape(256, 10)
    return [params.first.transpose(3, 2, 0, 1), params.second.transpose(3, 2, 0, 1), weight]


def _cnn(torch: Any, params: list, x: Any, y: Any) -> Any:
    first, second, weight = params
    h = torch.relu(torch.nn.functional.conv2d(x.reshape(-1, 1, 8, 8), first, padding=1))
    h = torch.relu(torch.nn.functional.conv2d(h, second, stride=2, padding=1))
    return torch.nn.functional.cross_entropy(h.flatten(1) @ weight, y)


def _attention(torch: Any, params: list, x: Any, y: Any) -> Any:
    token, position, *inner, head = params
    h = torch.nn.functional.embedding(x, token) + position
    split = lambda w: (h @ w).reshape(-1, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)
    for query, key, value, out, up, down in (inner[:6], inner[6:]):
        scores = split(query) @ split(key).mT / (WIDTH // HEADS) ** 0.5
        seen = torch.softmax(scores, dim=-1) @ split(value)
        h = h + seen.transpose(1, 2).reshape(-1, LENGTH, WIDTH) @ out
        h = h + torch.relu(h @ up) @ down
    return torch.nn.functional.cross_entropy(h.mean(dim=1) @ head, y)


MODELS: dict[str, tuple[Callable[[Any], list], Loss]] = {
    "scalar": (_leaves, _scalar),
    "small_mlp": (_leaves, _mlp),
    "digits_mlp": (_leaves, _mlp),
    "wide_mlp": (_leaves, _mlp),
    "logistic": (_leaves, _logistic),
    "cnn": (_cnn_params, _cnn),
    "attention": (_leaves, _attention),
}
