"""Reports in a real browser: a report to open, and what a reader does with it."""

import math
import time
from types import SimpleNamespace

import browser
import numpy as np
import synthetic
from matplotlib.figure import Figure

from gdkit.app import report
from gdkit.app.config.loading import loads
from gdkit.app.summary import summarize

CHROMIUM = browser.find_chromium()
HOSTILE = "<script>alert(1)</script>"
CONFIG = """\
name: made
problem: {name: parabola}
optimizer: [{name: sgd}, {name: adam}]
sweep: {axes: {learning_rate: [0.1, 1.0]}, steps: 200}
"""


def write(result, folder, drawn=()):
    return report.write_report(loads(CONFIG), result, summarize(result), drawn, folder)


def make(folder):
    """A report of three optimizers, two axes and three seeds, with its result."""
    others = {"momentum": [0.0, 0.5, 0.9]}
    result = synthetic.result(("sgd", "adam", HOSTILE), others=others, rates=16, edge=0.85)  # between seeds of a value
    blank = Figure(figsize=(2, 1))
    drawn = [report.save_figure(blank, folder / "figure", "A figure", "for readers without JavaScript")]
    address = write(result, folder, drawn).as_uri()
    return SimpleNamespace(result=result, frame=result.to_dataframe(), address=address, folder=folder)


def choose(page, label, option, within="#scores"):
    """Chooses an option of the chooser with this label."""
    page.evaluate(
        f"""(() => {{
          const label = [...document.querySelectorAll("{within} label")].find((l) => l.innerText.startsWith({label!r}));
          const select = label.querySelector("select");
          select.value = [...select.options].find((o) => o.text === {option!r}).value;
          select.dispatchEvent(new Event("change"));
        }})()"""
    )


def click(page, selector, number=0):
    page.evaluate(f"document.querySelectorAll({selector!r})[{number}].click()")


def text(page, selector):
    return page.evaluate(f"document.querySelector({selector!r}).innerText")


def ruler(page, figure):
    """A function from values on the axes of a figure to a point of the window, from its grid and tick labels."""
    ticks = page.evaluate(
        f"""(() => {{
          const picture = document.querySelector("{figure} .picture");
          picture.scrollIntoView({{block: "center"}});
          const lines = [...picture.querySelectorAll(".grid line")].map((l) => l.getBoundingClientRect());
          const texts = [...picture.querySelectorAll(".ticks text:not(.title)")].map((t) => Number(t.textContent));
          return lines.map((r, i) => [r.width < r.height, r.width < r.height ? r.x : r.y, texts[i]]);
        }})()"""
    )
    axes = []
    for upright in (True, False):
        at, values = zip(*[(p, math.log10(v)) for u, p, v in ticks if u == upright and v > 0], strict=True)
        axes.append(np.polyfit(values, at, 1))
    return lambda x, y: (float(np.polyval(axes[0], math.log10(x))), float(np.polyval(axes[1], math.log10(y))))


def card(page):
    """The card: the run's name, its regime and its numbers."""
    return page.evaluate(
        """(() => {
          const card = document.getElementById("card");
          if (card.hidden) return null;
          const facts = [...card.querySelectorAll("dt")].map((dt) => [dt.innerText, dt.nextSibling.innerText]);
          return {name: card.querySelector("strong").innerText, regime: card.querySelector("p").innerText,
                  facts: Object.fromEntries(facts)};
        })()"""
    )


def lane_named(frame, name):
    """The row of the lane with the name of a card."""
    optimizer, rate, momentum, seed = name.rsplit(", ", 3)
    number = lambda words: float(words.split()[-1])
    same = (frame["optimizer"] == optimizer) & (frame["seed"] == number(seed)) & (frame["momentum"] == number(momentum))
    return frame[same & np.isclose(frame["learning_rate"], number(rate), rtol=5e-3)].iloc[0]


def wait_for(page, name):
    """A download, when it is complete."""
    file, until = page.downloads / name, time.monotonic() + 30
    while not file.exists() and time.monotonic() < until:
        page.evaluate("new Promise((done) => setTimeout(done, 50))")
    return file


def settle(page):
    page.evaluate("new Promise((done) => setTimeout(done, 400))")
