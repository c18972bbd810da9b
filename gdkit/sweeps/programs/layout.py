"""How a program goes through its steps on a platform."""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from gdkit import monitors
from gdkit.descent import Lane
from gdkit.sweeps.plan.shapes import Shape
from gdkit.types import Array, Monitor


class Layout(NamedTuple):
    """How a program goes through its steps: a matter of speed, not of results.

    On an accelerator the host waits for the condition of a `while` at each iteration. A stride is a loop of static
    length, which is queued as a whole.
    """

    unroll: int = 1  # steps per iteration of a stride; with 0 a call makes one step, without a loop
    stride: int = 1  # steps between two checks of whether any lane is running; leftover steps are single
    # whether the first and the last step have loops of their own, and the others check for running lanes only now and
    # then: 0.7 of the time of a scalar with statistics of the ends
    peels: bool = False
    samples_ahead: bool = False  # whether the batches of a stride are sampled before it
    on_vectors: bool = False  # whether built-in statistics take gradients and updates as one vector per lane
    chunk: int = 0  # points that a call advances side by side, one chunk after the other; 0 for all
    compacts: bool = False  # whether the running lanes of a block in which many have ended are advanced by themselves

    def choose_monitors(self, watched: Sequence[Monitor]) -> tuple[Monitor, ...]:
        """The monitors of its lanes, whose values are the same to rounding.

        On one vector a reduction is one kernel, not one per leaf.
        """
        if not self.on_vectors:
            return tuple(watched)
        on_vectors = {id(make()): make(on_vector=True) for make in (monitors.reversals, monitors.norms)}
        return tuple(on_vectors.get(id(monitor), monitor) for monitor in watched)

    def separate(self, lanes: Lane, loss: Array) -> tuple[Lane, Array]:
        """The lanes between two steps of a stride, and the loss, of which later kernels are to read what is written.

        XLA would otherwise recompute it, and copy what that needs before other kernels overwrite it: the previous
        update of a lane, and the moments from which an optimizer computed its params. Where the state is params alone,
        it is the record that has to be read: the digits MLP by sgd then takes 26 kernels per step instead of 27. Where
        a whole stride is one iteration, it is the losses that the curve reads.
        """
        if self.unroll >= self.stride:
            return lanes, jax.lax.optimization_barrier(loss)
        if self.unroll == 1:
            return lanes, loss
        if jax.tree.leaves(lanes.state._replace(params=())):
            return jax.lax.optimization_barrier(lanes), loss
        return lanes._replace(record=jax.lax.optimization_barrier(lanes.record)), loss


ON_CPU = Layout()
ON_ACCELERATOR = Layout(stride=8, samples_ahead=True, on_vectors=True, compacts=True)


def choose_layout(platform: str, shape: Shape, *, peels: bool = False) -> Layout:
    """The layout of programs on a platform for blocks of a shape; `peels` if that pays on a CPU.

    On a CPU an iteration is one step, whatever the shape says: in iterations of several, XLA would round a step
    differently according to its place, and results would depend on where segments end.
    """
    if platform == "cpu" or shape.unroll == 0:
        unroll = min(shape.unroll, 1)
        return ON_CPU._replace(unroll=unroll, peels=peels and unroll > 0, chunk=shape.chunk)
    return ON_ACCELERATOR._replace(unroll=shape.unroll)
