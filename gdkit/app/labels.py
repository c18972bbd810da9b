"""The labels of columns: text, unit and one sentence each, for Python and for the page."""

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple


class Label(NamedTuple):
    """How a column is shown."""

    text: str
    description: str = ""  # one sentence
    unit: str = ""

    @property
    def title(self) -> str:
        """The label with its unit, for an axis or the head of a column."""
        return f"{self.text} ({self.unit})" if self.unit else self.text


_LATE = "the late steps (the last eighth to third of a run)"
_LABELS = {
    "lane": Label("run", "Number of the run."),
    "optimizer": Label("optimizer"),
    "seed": Label("seed", "Determines the initial parameters and the batches."),
    "regime": Label("outcome", "Regime of the run: converged, oscillating, bouncing, diverged and so on."),
    "end_kind": Label("end", "Why the run ended."),
    "end_step": Label("last step", "Steps that the run completed.", "steps"),
    "loss": Label("loss", "Training loss along the run."),
    "initial_loss": Label("initial loss", "Training loss before the first step."),
    "final_loss": Label("final loss", "Training loss at the last step."),
    "min_loss": Label("lowest loss", "Lowest training loss of the run."),
    "min_step": Label("step of the lowest loss", "Step at which the training loss was lowest."),
    "max_loss": Label("highest loss", "Highest finite training loss of the run."),
    "max_step": Label("step of the highest loss", "Step at which the finite training loss was highest."),
    "late_mean": Label("late mean loss", f"Mean training loss over {_LATE}."),
    "late_spread": Label("late loss spread", f"Standard deviation of the training loss over {_LATE}."),
    "earlier_mean": Label("earlier mean loss", "Mean training loss over the window before the late steps."),
    "late_predicted": Label(
        "predicted late decrease", f"Decrease of the loss that the gradients predict over {_LATE}, were it linear."
    ),
    "increases": Label("share of increases", "Share of the steps at which the training loss rose.", "0 to 1"),
    "reversal": Label(
        "cosine of successive updates", f"Mean over {_LATE}; negative where updates reverse direction.", "−1 to 1"
    ),
    "reversal_step": Label("step of the first reversal", "First update that reversed direction; −1 if none did."),
    "rounded_away": Label("updates lost to rounding", "Whether rounding undoes every late update."),
    "grad_norm": Label("gradient norm", f"Mean norm of the gradient over {_LATE}."),
    "update_norm": Label("update norm", f"Mean norm of the update over {_LATE}."),
    "peak_update_norm": Label("largest update norm", "Largest norm of an update in the run."),
    "skipped_steps": Label("skipped steps", "Steps that the optimizer skipped because the gradient was not finite."),
    "reference_loss": Label("reference loss", "Optimum, or where it is unknown the lowest loss observed."),
    "sharpness": Label("sharpness", "Largest eigenvalue of the Hessian at the last measurement."),
    "sharpness_max": Label("highest sharpness", "Highest of the measured values of the sharpness."),
    "sharpness_residual": Label("sharpness residual", "Accuracy of the last measurement of the sharpness."),
    "preconditioned_sharpness": Label(
        "preconditioned sharpness", "Largest eigenvalue of the Hessian as the optimizer scales it."
    ),
    "lyapunov_exponent": Label(
        "Lyapunov exponent", "Mean growth of a small difference; positive where neighboring runs separate.", "per step"
    ),
}  # fmt: skip
_SPLITS = {"validation": "validation data", "test": "test data, never used to choose", "train": "training data"}
_TRAINING_LOSSES = ("loss", "initial_loss", "final_loss", "min_loss", "max_loss", "late_mean", "earlier_mean")


def label_of(name: str) -> Label:
    """The label of a column, an axis or a curve.

    >>> label_of("late_predicted").text, label_of("lyapunov_exponent").title, label_of("problem.batch_size").text
    ('predicted late decrease', 'Lyapunov exponent (per step)', 'batch size')
    """
    if name in _LABELS:
        return _LABELS[name]
    split, _, rest = name.partition("_")
    if split in _SPLITS and rest:
        return Label(_to_words(name), f"{_to_words(rest).capitalize()} on {_SPLITS[split]}.")
    if name.startswith("time_to_"):
        target = name.removeprefix("time_to_")
        return Label(f"steps to loss {target}", f"First step whose loss is at most {target}; −1 if none was.")
    return Label(_to_words(name))


def _to_words(name: str) -> str:
    return name.removeprefix("problem.").replace("_", " ")


def humanize(name: str) -> str:
    """The label of a name without its unit: ``validation_loss`` -> ``validation loss``."""
    return label_of(name).text


def humanize_names(text: str, names: Collection[str]) -> str:
    """A sentence in which names of columns and axes are replaced by their labels.

    >>> humanize_names("the best mean_loss at learning_rate 0.1", ["learning_rate"])
    'the best mean_loss at learning rate 0.1'
    """
    internal = [re.escape(name) for name in names if "_" in name]
    return re.sub(rf"\b({'|'.join(internal)})\b", lambda found: humanize(found[0]), text) if internal else text


def labels_of(names: Collection[str], attributes: Mapping[str, Any]) -> dict[str, Label]:
    """The labels of the columns of a sweep with these attributes; the units of losses name their data."""
    held_out = any(name.startswith(("validation_", "test_")) for name in names)
    unit = "training minibatch" if attributes.get("stochastic") else "training" if held_out else ""
    of = lambda name: label_of(name)._replace(unit=unit) if name in _TRAINING_LOSSES else label_of(name)
    return {name: of(name) for name in names}
