"""Notebooks show the numbers of an object as text."""

import re
from html import escape

import jax
import numpy as np
import synthetic

from gdkit import chain_rule_trace, check_gradient, finite_difference, problems, sgd, training_table, tune
from gdkit.descent import Trajectory
from gdkit.formatting import html
from gdkit.sweeps.result.resumable import Replay


def cells(page: str) -> list[list[str]]:
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]


def trajectory(loss) -> Trajectory:
    count = len(loss)
    return Trajectory(0.0, (), (), np.arange(count), loss, loss[:-1] * 2, loss[:-1] / 2, {})


def test_texts_are_no_markup():
    assert "<b>" not in html.table(["<b>"], [["<b>"]], note="<b>")
    assert html.table([], [], title="a\nb") == "<div><p><b>a<br>b</b></p><table></table></div>"


def test_a_sweep_shows_one_row_per_optimizer_with_its_recommendation():
    result = synthetic.result()
    shown = cells(result._repr_html_())
    for row, label in zip(shown[1:], ("sgd", "adam"), strict=True):
        found = result.select(optimizer=label).recommend()
        assert row[:3] == [label, "learning_rate", f"{found.best:.4g}"]
        assert row[-1] == f"{found.edge:.4g}"


def test_a_caveat_of_one_optimizer_names_it():
    shown = synthetic.result(("sgd", "adam"), edge=60.0)._repr_html_()  # that of adam is a tenth
    assert "Caveat: sgd: no divergence found up to 10." in shown
    assert "Caveat: sgd, adam" not in shown


def test_a_sweep_that_diverged_everywhere_shows_no_number():
    shown = synthetic.result(("sgd",), edge=1e-6)._repr_html_()
    assert "Caveat: no best learning_rate" in shown
    assert not re.search(r"\b(nan|None|inf)\b", shown)


def test_a_trajectory_shows_its_first_and_last_points():
    loss = 2.0 ** -np.arange(201.0)
    shown = cells(trajectory(loss)._repr_html_())
    assert shown[0] == ["step", "loss", "gradient norm", "update norm"]
    assert shown[1] == ["0", "1", "2", "0.5"]
    assert shown[-1] == ["200", f"{loss[-1]:.4g}", "", ""]
    assert 8 <= len(shown) <= 13
    assert [row[0] for row in cells(trajectory(loss[:2])._repr_html_())] == ["step", "0", "1"]


def test_objects_show_what_they_print():
    result, bowl = synthetic.result(), problems.parabola()
    things = [
        result.recommend(),
        result.best(),
        Replay(3, 5, {"step": np.arange(2), "loss": np.ones(2)}, True),
        training_table(bowl, sgd(0.2), 2),
        finite_difference(lambda x: x**2, 3.0, [0.1, 0.01]),
        check_gradient(bowl.loss, 1.0),
        tune(bowl, sgd, {"learning_rate": 0.01}, 5, rounds=1),
    ]
    for thing in things:
        assert thing._repr_html_() == f"<pre>{escape(str(thing))}</pre>"
        assert str(thing) != repr(thing), "it has a text of its own"


def test_the_best_point_prints_its_hyperparameters_and_score():
    best = synthetic.result(("sgd",)).best()
    assert str(best) == (
        f"learning_rate {best.hyperparameters['learning_rate']:.4g}, optimizer sgd: "
        f"validation_loss {best.score:.4g}, spread {best.spread:.4g} over 3 seeds"
    )


def test_batched_and_traced_trajectories_have_no_table():
    assert trajectory(np.ones((3, 4)))._repr_html_() is None
    shown = []
    jax.eval_shape(lambda loss: shown.append(trajectory(loss)._repr_html_()), np.ones(4))
    assert shown == [None]


def test_a_trace_shows_what_it_prints():
    trace = chain_rule_trace(lambda x: (x - 3.0) ** 2, 1.0)
    printed = [[cell.strip() for cell in line.split(" | ")] for line in str(trace).splitlines() if " | " in line]
    shown = [[cell.strip() for cell in row] for row in cells(trace._repr_html_())]
    width = len(shown[0])
    assert [(row + [""] * width)[:width] for row in printed] == shown
