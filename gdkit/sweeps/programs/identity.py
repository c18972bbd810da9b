"""What the runs of a group compute, as a hash that needs neither blocks nor a compiler."""

from typing import Any

import jax
import jax.numpy as jnp

from gdkit import binding, descent, monitors
from gdkit.descent.evaluation import evaluate, evaluate_along, observe_evaluation, observes_evaluations
from gdkit.sweeps.programs.groups import TracedGroup
from gdkit.sweeps.request import SweepRequest
from gdkit.tracing import jaxprs
from gdkit.types import Array, Key


def trace_lane(request: SweepRequest, group: TracedGroup) -> tuple[str, set[str]]:
    """A hash of one lane of a group: its start, an observed step, and what is read out; and the names of the latter.

    Groups with equal hashes compute the same under one version of gdkit, which decides all else of a program. Tracing
    one lane takes an eighth of the time of tracing and lowering the programs of its blocks.
    """
    problem, optimizer = request.problem, group.group.section.optimizer
    watched, arrays = group.record(request).monitors, binding.get_arrays(group.problem)

    def lane(traced: dict[str, Array], key: Key, arrays: binding.Arrays, limits: monitors.Limits, t: Array) -> Any:
        point = {**group.static, **traced}
        before = descent.start_lane(problem, optimizer, watched, point, key, arrays)
        inputs = descent.StepInputs(point, t, key, arrays.data)
        step = descent.observed_step(problem, optimizer, watched)
        after, loss = step(before, inputs, limits, t == request.steps)
        values = evaluate(problem, optimizer, point, after.state, arrays, t, key)
        if observes_evaluations(watched):
            along = evaluate_along(problem, optimizer, point, after.state, arrays, t, key)
            seen = observe_evaluation(problem, watched, point, after.state, after.record, along, t)
            return before, after, loss, seen, monitors.read(watched, after.record), values
        return before, after, loss, monitors.read(watched, after.record), values

    number: Any = jax.ShapeDtypeStruct((), binding.traced_dtype())
    traced = dict.fromkeys(group.group.traced, number)
    limits = monitors.Limits(*(number for _ in request.limits))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    program, shapes = jax.make_jaxpr(lane, return_shape=True)(traced, request.key, arrays, limits, step)
    *_, statistics, values = shapes
    return jaxprs.digest_program(program), {*statistics, *values}
