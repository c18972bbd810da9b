"""States of lanes in a run directory: their structure as JSON, and one lane read without its problem."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gdkit import store
from gdkit.descent.evaluation import find_best
from gdkit.errors import DamagedFileError, InputValueError, bad_value
from gdkit.problems import ProblemLike
from gdkit.problems.learner import own_state
from gdkit.store import Store
from gdkit.sweeps.description import Description, extend_grids
from gdkit.sweeps.programs.packing import Packed, to_jax
from gdkit.trees import children, is_key
from gdkit.types import PyTree, State


@dataclasses.dataclass(frozen=True)
class _StoredLeaf:
    """Where the numbers of a leaf are in the lanes of a block; a leaf itself."""

    array: int
    column: int | None  # place on the last axis of the array; None for the whole array
    key: str | None  # the implementation of a typed key, whose data the array holds


class StoredStates(NamedTuple):
    """The states at the last step that a run directory stores."""

    run: Store

    def state(self, lane: int, step: int | None = None) -> State | PyTree:
        """The state of a lane at its end, or at an evaluation; classes of the user become dicts of their fields.

        Raises:
          InputValueError: the directory does not store it.
          StoreError: it cannot be read.
        """
        if self.run.manifest.plan.get("keep_states", "auto") is None:
            raise no_states_error()
        is_end = step is None or step >= self.run.columns(["end_step"]).values["end_step"][lane]
        leaves = self.read_leaves(lane) if is_end else self.read_best(lane, step)
        if leaves is None:
            remedy = "Pass problem= and optimizer= to gdkit.open, which run its block again"
            at = "" if is_end else f" at step {step}"
            raise bad_value("lane", lane, f"the run directory does not store its state{at}", remedy)
        state = _rebuild(self._layout(lane), iter(leaves))
        is_state = isinstance(state, dict) and tuple(state) == State._fields
        return State(**state) if is_state else state

    def read_leaves(self, lane: int) -> list[Any] | None:
        """The leaves of the state of a lane at its end; None if the directory does not store them."""
        return self._read(lane, self._layout(lane)) if self.run.manifest.plan.get("states") else None

    def read_best(self, lane: int, step: int) -> list[Any] | None:
        """The leaves of the state of a lane at `step`, if its best evaluation is there and the directory stores it."""
        if not (self.run.manifest.plan.get("states") or {}).get("best"):
            return None
        leaves = self._read(lane, self._layout(lane, "best"))
        _, kept_step, *state = leaves or (None, -1)
        return state if int(kept_step) == step else None

    def _read(self, lane: int, layout: Any) -> list[Any] | None:
        place = self.run.partition.find_lane(lane)
        stored = self.run.carry(place.block, last=True)
        return stored and [_read_leaf(leaf, stored.leaves, place[2:]) for leaf in _list_leaves(layout)]

    def _layout(self, lane: int, kind: str = "layouts") -> Any:
        states = self.run.manifest.plan["states"]
        return states[kind][states["groups"][self.run.partition.find_lane(lane).group]]


class MergedStates(NamedTuple):
    """The states of a sweep whose parts are in several run directories, as `StoredStates` returns them."""

    parts: "tuple[StoredStates | MergedStates, ...]"
    part: np.ndarray  # (lanes,), the number of the part that has a lane
    lane: np.ndarray  # (lanes,), its number in that part

    @staticmethod
    def merge(
        parts: "Sequence[StoredStates | MergedStates]", points: Sequence[np.ndarray], seeds: int
    ) -> "MergedStates":
        """The states of parts, each with the places of its points in the whole sweep."""
        count = 1 + max(int(own.max()) for own in points)
        part, lane = np.zeros((count, seeds), int), np.zeros((count, seeds), int)
        for number, own in enumerate(points):
            part[own] = number
            lane[own] = np.arange(len(own) * seeds).reshape(-1, seeds)
        return MergedStates(tuple(parts), part.ravel(), lane.ravel())

    def state(self, lane: int, step: int | None = None) -> State | PyTree:
        """As `StoredStates.state`."""
        return self.parts[self.part[lane]].state(int(self.lane[lane]), step)

    def read_leaves(self, lane: int) -> list[Any] | None:
        """As `StoredStates.read_leaves`."""
        return self.parts[self.part[lane]].read_leaves(int(self.lane[lane]))

    def read_best(self, lane: int, step: int) -> list[Any] | None:
        """As `StoredStates.read_best`."""
        return self.parts[self.part[lane]].read_best(int(self.lane[lane]), step)


def open_states(path: Path) -> StoredStates | MergedStates | None:
    """The states in a run directory, and in those that extend its axes; None for a sweep of a function.

    Raises:
      StoreError: a manifest is missing or damaged.
    """
    first, *extensions = store.open_with_extensions(path)
    if "states" not in first.manifest.plan:
        return None
    states: StoredStates | MergedStates = StoredStates(first)
    described = Description.from_json(first.manifest.plan["result"])
    grids = list(zip(described.grids, described.axes, strict=True))
    for extension in extensions:
        more = Description.from_json(extension.manifest.plan["result"])
        grids, old, new = extend_grids(grids, zip(more.grids, more.axes, strict=True))
        states = MergedStates.merge((states, StoredStates(extension)), (old, new), first.manifest.seeds)
    return states


def verify_tile(run: Store, tile: int) -> None:
    """Check that a tile can be read, and that the states are stored that the sweep was asked to keep.

    Raises:
      DamagedFileError: a file is not what was written, or states are missing.
      StoreError: the tile is not stored, or the system refused.
    """
    halved = run.read_tile(tile).narrower  # for lack of memory; states of such blocks are not stored
    if halved or run.manifest.plan.get("keep_states") not in ("last", "best"):
        return
    for block in run.partition.blocks_of(tile):
        if run.step(block, last=True) is None:
            raise DamagedFileError(f"{run.path}: the states of tile {tile}, block {block}, are missing or damaged.")


def describe_states(lanes: Sequence[Packed], problem: ProblemLike) -> dict[str, Any]:
    """The structure of the states of each group, as JSON: distinct layouts, and for each group the number of its own.

    Under ``best`` are the layouts of the memory of `keep_best`, if states at the best evaluations are kept. Per group,
    `lanes` are those of a block, as shapes. The states of a Learner have their own structure.
    """
    layouts = [_describe_state(packed, problem) for packed in lanes]
    distinct = [layout for i, layout in enumerate(layouts) if layout not in layouts[:i]]
    groups, (states, best) = [distinct.index(layout) for layout in layouts], zip(*distinct, strict=True)
    return {"layouts": list(states), "groups": groups} | ({"best": list(best)} if any(best) else {})


def no_states_error() -> InputValueError:
    """The error for the state of a lane of a sweep with ``keep_states=None``."""
    return bad_value("keep_states", None, "the sweep keeps no states", 'Run it with keep_states="auto" or "last"')


def _describe_state(lanes: Packed, problem: ProblemLike) -> tuple[Any, Any]:
    """The layouts of the states of lanes, and of the memory of `keep_best`; the latter is None if there is none."""
    key = lambda x: str(jax.random.key_impl(jnp.empty((), x.dtype))) if is_key(x) else None
    leaves = [_StoredLeaf(array, column, key(lanes.arrays[array])) for array, column in lanes.places]
    lane = jax.tree.unflatten(lanes.structure, leaves)
    best = find_best(lane.record)
    kept = best and best._replace(state=own_state(problem, best.state))
    return _describe(own_state(problem, lane.state)), _describe(kept)


def _describe(tree: PyTree) -> Any:
    """A tree as JSON: ``null``, or an object whose one name is the kind of node."""
    if tree is None:
        return None
    if isinstance(tree, _StoredLeaf):
        return {"leaf": [tree.array, tree.column, tree.key]}
    kind = next((kind for kind in (dict, list, tuple) if type(tree) is kind), None)
    parts = [(name, _describe(child)) for name, child in children(tree)]
    if kind in (list, tuple):
        return {kind.__name__: [part for _, part in parts]}
    return {"dict": [[name if isinstance(name, int) else str(name), part] for name, part in parts]}


def _rebuild(layout: Any, leaves: Any) -> Any:
    """The tree of a layout, its leaves taken in order."""
    if layout is None:
        return None
    ((kind, parts),) = layout.items()
    if kind == "leaf":
        return next(leaves)
    if kind == "dict":
        return {name: _rebuild(part, leaves) for name, part in parts}
    return (list if kind == "list" else tuple)(_rebuild(part, leaves) for part in parts)


def _list_leaves(layout: Any) -> list[_StoredLeaf]:
    """The leaves of a layout in order."""
    if layout is None:
        return []
    ((kind, parts),) = layout.items()
    if kind == "leaf":
        return [_StoredLeaf(*parts)]
    return [leaf for part in parts for leaf in _list_leaves(part[1] if kind == "dict" else part)]


def _read_leaf(leaf: _StoredLeaf, arrays: Sequence[np.ndarray], at: tuple[int, ...]) -> Any:
    x = arrays[leaf.array][at if leaf.column is None else (*at, leaf.column)]
    return to_jax(x) if leaf.key is None else jax.random.wrap_key_data(jnp.asarray(x), impl=leaf.key)
