"""Targets of the benchmark, and where the results contain each."""

import math
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

Find = Callable[[Mapping[str, Any]], float | None]  # results by part -> the measured number


class Target(NamedTuple):
    """A bound on a measured number."""

    what: str
    bound: float
    unit: str
    find: Find
    at_least: bool = True  # or at most


def judge(target: Target, parts: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """A table row: description, bound, measured number, verdict."""
    bound = f"{'≥' if target.at_least else '≤'} {target.bound:g} {target.unit}"
    measured = target.find(parts)
    if measured is None:
        return target.what, bound, "not measured", ""
    value = measured * SCALES[target.unit]
    met = value >= target.bound if target.at_least else value <= target.bound
    return target.what, bound, f"{value:.3g} {target.unit}", "met" if met else "**not met**"


SCALES = {"×": 1.0, "s": 1.0, "%": 100.0, "GiB": 2.0**-30, "µs": 1e6}


def _peer(part: str, title: str, flavour: str) -> Find:
    """The ratio of the peer whose title starts with `title`."""

    def find(parts: Mapping[str, Any]) -> float | None:
        rows = parts.get(part, {"peers": []})["peers"]
        return next((r["ratio"] for r in rows if r["title"].startswith(title) and r["flavour"] == flavour), None)

    return find


def _at(*path: str) -> Find:
    def find(parts: Mapping[str, Any]) -> float | None:
        value: Any = parts
        for name in path:
            value = None if value is None else value.get(name)
        return value

    return find


def _at_most(what: str, bound: float, unit: str, *path: str) -> Target:
    return Target(what, bound, unit, _at(*path), at_least=False)


def _growth(parts: Mapping[str, Any]) -> float | None:
    """Peak memory of the longest run as a multiple of that of the shortest."""
    scaling = parts.get("scaling")
    return None if scaling is None else scaling["steps"]["peak"][-1] / scaling["steps"]["peak"][0]


def _relative(part: str, title: str, flavour: str, own: str) -> Find:
    """The ratio of the peer whose title starts with `title` to gdkit with the statistics `own`."""

    def find(parts: Mapping[str, Any]) -> float | None:
        peer, gdkit = _peer(part, title, flavour)(parts), _peer(part, "gdkit", own)(parts)
        return None if peer is None or gdkit is None else peer / gdkit

    return find


def _search(peer: str) -> Find:
    """The median time of a search with Optuna over that of the fastest of gdkit's ways."""

    def find(parts: Mapping[str, Any]) -> float | None:
        seconds = parts.get("tuning", {"seconds": {}})["seconds"]
        medians = {name: median(math.inf if s is None else s for s in each) for name, each in seconds.items()}
        own = [value for name, value in medians.items() if name.startswith("gdkit")]
        return medians[peer] / min(own) if peer in medians else None

    return find


HAND, LOOP, FUNC = "best by hand", "PyTorch, loop", "PyTorch, torch.func"
TARGETS = (
    Target("MLP sweep (64-64-64-10, batch 128, 64 learning rates), `statistics=\"ends\"`, against the best bare "
           "variant by hand", 0.95, "×", _relative("digits_mlp", HAND, "bare", "ends")),
    Target("the same with all statistics", 0.9, "×", _peer("digits_mlp", HAND, "bare")),
    Target("the same against the best variant by hand with all statistics", 0.9, "×", _peer("digits_mlp", HAND, "all")),
    Target("the same: its products alone in the same blocks, as a share of its time", 0.85, "×",
           _at("roofline", "reached", "digits_mlp", "products_share")),
    Target("scalar loss, 131,072 lanes × 1000, `statistics=\"ends\"`, against the best bare variant by hand", 0.5, "×",
           _relative("scalar", HAND, "bare", "ends")),
    Target("small MLP (16 wide, batch 16), 64 × 1000, against a PyTorch loop", 60, "×",
           _peer("small_mlp", LOOP, "bare")),
    Target("the same against torch.func", 6, "×", _peer("small_mlp", FUNC, "bare")),
    Target("search for a good learning rate, against Optuna on the same compiled run", 3, "×",
           _search("Optuna on compiled JAX")),
    Target("the same against Optuna on PyTorch", 12, "×", _search("Optuna on PyTorch")),
    Target("scalar loss, 131,072 lanes × 1000, against hand-written NumPy, all statistics", 1.5, "×",
           _peer("scalar", "NumPy", "all")),
    Target("peak memory of the longest run, as a multiple of that of the shortest", 1.05, "×", _growth, at_least=False),
    _at_most("1,000,000 lanes of a scalar, all statistics, no curves: peak memory", 1, "GiB",
             "scaling", "million", "peak"),
    _at_most("upper half of the axis diverges in the first tenth, against an axis where nothing does", 0.65, "×",
             "scaling", "divergence", "ratio"),
    _at_most("dispatch of a tile", 200, "µs", "scaling", "dispatch", "seconds_a_tile"),
    _at_most("progress and store, as a share of the main job", 2, "%", "scaling", "main_job", "share"),
    _at_most("sharpness of a 100,000-parameter MLP against its Hessian-vector products", 1.5, "×",
             "scaling", "sharpness", "ratio"),
    _at_most("batches read from the host, as a multiple of seeds × steps, for all blocks of a seed", 1.0, "×",
             "training", "batches", "ratio"),
    _at_most("time waiting for batches of a memory map, whose source is faster than the step", 5, "%",
             "training", "waiting", "share"),
    _at_most("evaluation every 100 steps, beyond the evaluations themselves", 2, "%",
             "training", "evaluation", "share"),
    _at_most("keeping the last states of all lanes", 2, "%", "training", "states", "last"),
    _at_most("keeping the best states of all lanes", 2, "%", "training", "states", "best"),
    _at_most("memory of a streaming sweep of ten times the steps, as a multiple", 1.1, "×",
             "training", "memory", "steps"),
    _at_most("memory of a streaming sweep over a source of twenty times the size, as a multiple", 1.1, "×",
             "training", "memory", "rows"),
    _at_most("main job, warm: seconds to the printed answer, less 1.3 × the steps alone", 3, "s",
             "answer", "answer_beyond"),
    _at_most("the same to the end of the command", 5, "s", "answer", "end_beyond"),
    _at_most("the same command on a finished run", 4, "s", "answer", "finished"),
    _at_most("`gdkit --help`", 0.5, "s", "scaling", "help", "seconds"),
)  # fmt: skip
