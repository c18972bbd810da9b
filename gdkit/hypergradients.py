"""Hypergradients: derivatives of a run's final loss with respect to its hyperparameters, and tuning by them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import binding, checks, descent
from gdkit.descent import Lane, StepInputs
from gdkit.errors import bad_type, bad_value, unknown_name
from gdkit.factories import cache_if_hashable
from gdkit.formatting import format_number, html, text_table
from gdkit.monitors import EndKind, Limits
from gdkit.problems import ProblemLike
from gdkit.types import Array, Hyperparameters, Key, OptimizerLike, StaticHyperparameters

FinalLoss = Callable[[Hyperparameters, Array, Key, binding.Arrays], Array]
FRACTIONS = ("b1", "b2", "b3", "decay", "decay_rate", "momentum")  # tuned in logits, so that they stay in (0, 1)


def final_loss_map(problem: ProblemLike, optimizer: OptimizerLike) -> FinalLoss:
    """The end of a run, as a map: ``(hyperparameters, steps, key, arrays) -> final loss``.

    A run ends after `steps` updates, or where a lane of a sweep does: at a loss that is not finite, or far above the
    first. It is a while_loop, so that `steps` can be traced, memory does not grow with them, and derivatives are
    forward only.

    Args:
      problem: a Problem, or a factory of one, whose hyperparameters are then named ``problem.NAME``.
      optimizer: an optimizer factory, or a finished optimizer.

    Returns:
      A pure function; `arrays` are those of `gdkit.binding.bind` or `gdkit.binding.get_arrays`.

    >>> from gdkit import problems, sgd
    >>> parabola = problems.parabola()
    >>> end = final_loss_map(parabola, sgd)
    >>> float(end({"learning_rate": 0.25}, 2, jax.random.key(0), binding.get_arrays(parabola)))  # 9 (1 − 2η)⁴
    0.5625
    """
    step = descent.observed_step(problem, optimizer, watched=())

    def final_loss(hyperparameters: Hyperparameters, steps: Array, key: Key, arrays: binding.Arrays) -> Array:
        init_key, sample_key = descent.split_key(key)
        lane = descent.start_lane(problem, optimizer, (), hyperparameters, init_key, arrays)

        def is_running(carry: tuple[Array, Lane, Array]) -> Array:
            return carry[1].record.end_kind == EndKind.RUNNING

        def body(carry: tuple[Array, Lane, Array]) -> tuple[Array, Lane, Array]:
            t, lane, _ = carry
            inputs = StepInputs(hyperparameters, t, sample_key, arrays.data)
            return t + 1, *step(lane, inputs, Limits(), t == steps)

        return jax.lax.while_loop(is_running, body, (jnp.int32(0), lane, lane.record.initial_loss))[2]

    return final_loss


def hypergradient(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    hyperparameters: Hyperparameters,
    steps: int,
    *,
    key: int | Key = 0,
) -> dict[str, Array]:
    """The derivative of a run's final loss with respect to each of its hyperparameters.

    The second result of `value_and_hypergradient`.

    >>> from gdkit import problems, sgd
    >>> slopes = hypergradient(problems.parabola(), sgd, {"learning_rate": 0.25}, 2)
    >>> float(slopes["learning_rate"])  # of 9 (1 − 2η)⁴: −72 (1 − 2η)³
    -9.0
    """
    return value_and_hypergradient(problem, optimizer, hyperparameters, steps, key=key)[1]


def value_and_hypergradient(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    hyperparameters: Hyperparameters,
    steps: int,
    *,
    key: int | Key = 0,
) -> tuple[Array, dict[str, Array]]:
    """A run's final loss, and its derivative with respect to each of its hyperparameters.

    Forward mode through the run, one tangent per hyperparameter: memory does not grow with `steps`, and one compiled
    program serves all float values and all numbers of steps. ``jax.vmap`` over values runs them side by side. A run
    ends where a lane of a sweep does. Beyond the edge of stability the derivatives are correct and of little use,
    because the final loss is then a rough function of the learning rate (Metz et al. 2021, Gradients are not all you
    need).

    Args:
      problem: a Problem, or a factory of one whose hyperparameters are named ``problem.NAME``.
      optimizer: an optimizer factory.
      hyperparameters: name to value. Those that cannot be traced, such as integers and strings, are constants.
      steps: the number of updates.
      key: the seed's key, or the integer that makes it.

    Returns:
      The final loss, and name to d(final loss) / d(hyperparameter), of the run's dtype; NaN where the loss is not
      finite.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used; the message names it and the remedy.

    >>> from gdkit import problems, sgd
    >>> at = lambda rate: value_and_hypergradient(problems.parabola(), sgd, {"learning_rate": rate}, 2)
    >>> loss, slopes = jax.vmap(at)(jnp.array([0.25, 0.5]))
    >>> [float(x) for x in (*loss, *slopes["learning_rate"])]
    [0.5625, 0.0, -9.0, 0.0]
    """
    chosen = checks.as_hyperparameters(hyperparameters)
    program, traced, arrays = _bind(problem, optimizer, chosen, steps, key)
    if not traced:
        remedy = "Pass at least one float, for example {'learning_rate': 0.1}"
        raise bad_value("hyperparameters", chosen, "none of them has a derivative", remedy)
    loss, slopes = program(traced, {}, jnp.int32(steps), checks.as_key(key), arrays)
    if not checks.is_finite(loss):
        descent.check_first_step(problem, optimizer, chosen, checks.as_key(key), arrays)
    for name, slope in slopes.items():
        if checks.is_finite(loss) and not checks.is_finite(slope):
            raise _derivative_error(name, chosen[name])
    return loss, slopes


def _bind(
    problem: ProblemLike, optimizer: OptimizerLike, chosen: dict[str, Any], steps: int, key: int | Key
) -> tuple[Callable[..., tuple[Array, dict[str, Array]]], dict[str, Array], binding.Arrays]:
    """Check the arguments; the compiled program, the traced hyperparameters and the problem's arrays."""
    checks.check_integer("steps", steps)
    arrays, static, traced = binding.bind(problem, optimizer, chosen)
    binding.check_run(problem, optimizer, chosen, checks.as_key(key), arrays)
    return _compile_slopes(problem, optimizer, static), traced, arrays


@cache_if_hashable(maxsize=32)
def _compile_slopes(
    problem: ProblemLike, optimizer: OptimizerLike, static: StaticHyperparameters
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """``(varied, fixed, steps, key, arrays) -> (final loss, its derivatives with respect to the varied)``."""
    end = final_loss_map(problem, optimizer)

    def final_loss(varied: dict, fixed: dict, steps: Array, key: Key, arrays: binding.Arrays) -> tuple[Array, Array]:
        loss = end(dict(static) | fixed | varied, steps, key, arrays)
        return loss, loss

    def value_and_slopes(*args: Any) -> tuple[Array, dict[str, Array]]:
        slopes, loss = jax.jacfwd(final_loss, has_aux=True)(*args)
        return loss, jax.tree.map(lambda slope: jnp.where(jnp.isfinite(loss), slope, jnp.nan), slopes)

    return jax.jit(value_and_slopes)


# Tuning: descent on the final loss


class Round(NamedTuple):
    """One trial of `tune`."""

    hyperparameters: dict[str, float]  # the tuned ones
    final_loss: float  # mean over seeds
    slope: dict[str, float]  # d(final loss) / d(logarithm, or logit, of the hyperparameter)
    better: bool  # whether its loss is the lowest so far


class Tuned(NamedTuple):
    """The best hyperparameters that were tried, and every trial; prints as a table."""

    hyperparameters: dict[str, Any]  # all, the tuned ones at their best
    final_loss: float
    history: tuple[Round, ...]  # the first is the start

    def __str__(self) -> str:
        names = list(self.history[0].hyperparameters)
        slopes = [f"slope in {_get_coordinate(name).label} {name}" for name in names]
        rows: list[list[str]] = []
        for i, tried in enumerate(self.history):
            numbers = *tried.hyperparameters.values(), tried.final_loss, *tried.slope.values()
            rows.append([str(i), *(format_number(x, 6) for x in numbers), "yes" if tried.better else "no"])
        return text_table(("round", *names, "final loss", *slopes, "better"), rows)

    _repr_html_ = html.preformat


def tune(
    problem: ProblemLike,
    optimizer: OptimizerLike,
    hyperparameters: Hyperparameters,
    steps: int,
    *,
    names: Sequence[str] = ("learning_rate",),
    rounds: int = 20,
    rate: float = 1.0,
    seeds: int = 1,
    key: int | Key = 0,
) -> Tuned:
    """Descend on the final loss of short runs, in the hyperparameters themselves, and return the best that was tried.

    Each round steps from the best so far against the signs of the hypergradient (Rprop: Riedmiller and Braun 1993): in
    the logarithms of positive hyperparameters, and in the logits of those between 0 and 1 (`FRACTIONS`: momentum, b1
    and others). Each has its own step length, which is doubled after a step that lowered the loss and halved after one
    that overshot: the slope changed sign, or the loss rose or was not finite although no slope changed sign. From then
    on a single hyperparameter is bisected. All rounds are calls of one compiled program.

    It finds a local minimum, for this number of `steps` only. It fails where:

    - beyond the edge of stability the final loss is chaotic in the learning rate, so that its slope says nothing about
      neighboring values (Metz et al. 2021, Gradients are not all you need). Start with a learning rate that is too
      small rather than too large;
    - the best value for few steps is not the best for many: short horizons prefer learning rates that are too small for
      long ones wherever some directions are steep or noisy (Wu et al. 2018, Understanding short-horizon bias in
      stochastic meta-optimization);
    - the final loss has several minima in the hyperparameters; a `sweep` shows them all;
    - on minibatches the final loss is that of one batch. More `seeds` make it less noisy.

    Args:
      problem: a Problem, or a factory of one whose hyperparameters are named ``problem.NAME``.
      optimizer: an optimizer factory.
      hyperparameters: name to value, the start.
      steps: the number of updates of each run.
      names: the hyperparameters to tune; the others are constants.
      rounds: most trials after the first. The search ends sooner where the slope is zero.
      rate: the length of the first step: 1 is a factor of e.
      seeds: the loss is the mean over this many runs, which are those of a `sweep` with this key.
      key: the key that all seeds are made of, or the integer that makes it.

    Returns:
      The best hyperparameters, their final loss, and every round.

    Raises:
      InputValueError, InputTypeError: an argument cannot be used, or the run diverges at the start; the message
        names it and the remedy.

    >>> from gdkit import problems, sgd
    >>> tuned = tune(problems.quadratic([1.0, 4.0]), sgd, {"learning_rate": 0.01}, 20)
    >>> round(tuned.hyperparameters["learning_rate"], 2)  # 2 / (1 + 4) for many steps
    0.39
    """
    for argument, value in (("rounds", rounds), ("seeds", seeds)):
        checks.check_integer(argument, value)
    checks.check_number("rate", rate, above=0)
    chosen = checks.as_hyperparameters(hyperparameters)
    program, traced, arrays = _bind(problem, optimizer, chosen, steps, key)
    names = _check_names(names, chosen, traced)
    fixed = {name: value for name, value in traced.items() if name not in names}
    keys = [jax.random.fold_in(checks.as_key(key), seed) for seed in range(seeds)]

    def trial(values: dict[str, float], least: float) -> Round:
        varied = {name: jnp.asarray(value, traced[name].dtype) for name, value in values.items()}
        runs = [program(varied, fixed, jnp.int32(steps), key, arrays) for key in keys]
        loss, slopes = jax.tree.map(lambda *seeds: float(np.mean(np.array(seeds, np.float64))), *runs)
        if least == math.inf and not math.isfinite(loss):  # the start diverges
            for key in keys:
                descent.check_first_step(problem, optimizer, chosen, key, arrays)
        slopes = {name: slopes[name] * _get_coordinate(name).stretch(value) for name, value in values.items()}
        return Round(values, loss, slopes, loss < least)

    start = {name: float(chosen[name]) for name in names}
    history = tuple(_search(trial, start, rounds, float(rate)))
    best = min((tried for tried in history if tried.better), key=lambda tried: tried.final_loss)
    return Tuned(chosen | best.hyperparameters, best.final_loss, history)


def _search(
    trial: Callable[[dict[str, float], float], Round], start: dict[str, float], rounds: int, rate: float
) -> Iterator[Round]:
    """The start, then trials against the slopes at the best so far, until the rounds end or all slopes are zero."""
    best = trial(start, math.inf)
    _check_start(best)
    yield best
    lengths, is_bracketed = np.full(len(start), rate), False
    for _ in range(rounds):
        signs = np.sign(list(best.slope.values()))
        if not (np.isfinite(signs).all() and signs.any()):
            return
        tried = trial(_move(best.hyperparameters, -lengths * signs), best.final_loss)
        yield tried
        turned = signs * np.sign(list(tried.slope.values())) < 0
        overshot = turned if tried.better or turned.any() else np.full_like(turned, True)
        is_bracketed = len(start) == 1 and (is_bracketed or overshot.all())  # a minimum between two trials: bisect
        lengths *= np.where(overshot | is_bracketed, 0.5, 2.0 if tried.better else 1.0)
        best = tried if tried.better else best


@np.errstate(all="ignore")  # long steps overflow or underflow
def _move(values: dict[str, float], steps: np.ndarray) -> dict[str, float]:
    """`values`, each moved by its step in its coordinate."""
    pairs = [(name, _get_coordinate(name), value) for name, value in values.items()]
    return {
        name: float(coordinate.value(coordinate.at(np.float64(value)) + step))
        for (name, coordinate, value), step in zip(pairs, steps, strict=True)
    }


class _Coordinate(NamedTuple):
    """The coordinate in which a hyperparameter is tuned: without bounds, and with steps of equal effect everywhere."""

    label: str
    below: float  # all values are above 0 and below this
    at: Callable[[Any], Any]  # value -> coordinate
    value: Callable[[Any], Any]  # coordinate -> value
    stretch: Callable[[Any], Any]  # d(value) / d(coordinate), at a value


_LOGARITHM = _Coordinate("log", math.inf, np.log, np.exp, lambda h: h)
_LOGIT = _Coordinate(
    "logit", 1.0, lambda h: np.log(h) - np.log1p(-h), lambda x: 0.5 + 0.5 * np.tanh(x / 2), lambda h: h * (1 - h)
)


def _get_coordinate(name: str) -> _Coordinate:
    return _LOGIT if name in FRACTIONS else _LOGARITHM


# Checks


def _check_names(names: Any, chosen: Mapping[str, Any], traced: Mapping[str, Array]) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise bad_type("names", names, "not a sequence of names", "Pass for example ('learning_rate',)")
    if len(set(names)) < len(names):
        raise bad_value("names", names, "a name occurs twice", "Pass each once")
    for name in names:
        if name not in chosen:
            raise unknown_name("names", name, chosen)
        where, value, below = f"hyperparameters[{name!r}]", chosen[name], _get_coordinate(name).below
        if name not in traced:
            raise bad_type(where, value, "it is static and has no derivative", "Tune floats only")
        if not 0 < value < below:
            domain = "above 0" if below == math.inf else f"between 0 and {below:g}"
            raise bad_value(where, value, f"not {domain}", f"Start with a number {domain}")
    return tuple(names)


def _check_start(start: Round) -> None:
    if not math.isfinite(start.final_loss):
        remedy = "Start with hyperparameters at which it is stable, for example a smaller learning rate"
        raise bad_value("hyperparameters", start.hyperparameters, "the run diverges there", remedy)
    for name, slope in start.slope.items():
        if not math.isfinite(slope):
            raise _derivative_error(name, start.hyperparameters[name])


def _derivative_error(name: str, value: Any) -> Exception:
    remedy = "Optimizers that divide by a square root, such as adam, need eps_root > 0"
    return bad_value(f"hyperparameters[{name!r}]", value, "the final loss has no derivative with respect to it", remedy)
