"""Terminals, signals and limits as people have them: none changes the exit code or the files of a run."""

import functools
import io
import json
import os
import signal
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest

import gdkit
from gdkit import plots, problems, sgd
from gdkit.app.cli import main
from gdkit.app.cli.streams import tolerant_output
from gdkit.app.run.hooks import Hooks
from gdkit.app.run.outputs import write_report
from tests.shared import quick

SMALL = """\
name: small
problem: {name: parabola}
optimizer: {name: sgd, label: "Größe β"}
sweep: {axes: {learning_rate: [0.1, 0.3, 2.0]}, steps: 20}
"""
UNREPORTED = Hooks(write_report=lambda *_: None)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")


def without_reader():
    """A stream whose reader has gone, as in ``gdkit run ... | head``."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full():
    """A stream to a full disk."""
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")


def closed():
    """A stream that was closed."""
    with open(os.devnull, "w") as stream:
        return stream


# Output


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_characters_that_a_terminal_lacks_have_stand_ins(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with tolerant_output():
        print("β ≤ 1 → 漢 █━ Größe")
    shown = stream.buffer.getvalue().decode(encoding)
    assert shown == f"beta <= 1 -> ? ## {'Grosse' if encoding == 'ascii' else 'Größe'}\n"


@pytest.mark.parametrize("make", quick([without_reader, full, closed], without_reader), ids=["pipe", "full", "closed"])
def test_a_terminal_that_fails_changes_neither_exit_code_nor_files(make, monkeypatch, tmp_path):
    stream = make()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["run", "small.yaml"]) == 0
    stream.close()
    assert {"report.html", "results.nc", "figures"} <= {path.name for path in (tmp_path / "runs/small").iterdir()}


# Signals and exits


# Processes in the background of a script ignore SIGINT, and hand this down.
HEAR = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


def start(*words, setup=""):
    """A process of the command line that has begun."""
    call = f"sys.argv[1:] = {list(words)}\nprint('started', flush=True)\nraise SystemExit(main())"
    code = f"import sys\n{HEAR}\n{setup}\nfrom gdkit.__main__ import main\n{call}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)
    assert process.stdout.readline() == "started\n"
    return process


SLOW = """
import sys, time
from gdkit import problems
def slow():
    print("waiting", file=sys.stderr, flush=True)
    {wait}
    return problems.parabola()
"""
WAITS = {
    "plainly": (signal.SIGTERM, "time.sleep(60)"),
    "under a handler of all exceptions": (signal.SIGINT, "try: time.sleep(60)\n    except BaseException: pass"),
    "within exec": (signal.SIGINT, "exec('time.sleep(60)')"),  # Python ends by SIGINT after an interrupted one
}


AT_IMPORT = """\
import os, sys


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "gdkit.app.cli":
            os.kill(os.getpid(), {number})


sys.meta_path.insert(0, Finder())
import gdkit.__main__
print("imported", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_during_the_imports_exits_with_130(number):
    code = f"{HEAR}\n{AT_IMPORT}".replace("{number}", str(int(number)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130 and not done.stdout
    assert done.stderr == "interrupted. Run the same command again.\n"


@pytest.mark.parametrize(("number", "wait"), quick(WAITS.values(), WAITS["plainly"]), ids=WAITS)
def test_a_signal_while_the_problem_is_built_exits_with_130_and_says_what_to_do(number, wait, tmp_path):
    (tmp_path / "mine_slow.py").write_text(SLOW.replace("{wait}", wait))
    (tmp_path / "slow.yaml").write_text(SMALL.replace("name: parabola", "use: mine_slow:slow"), encoding="utf-8")
    process = start("run", "slow.yaml")
    while "waiting" not in process.stderr.readline():
        pass
    process.send_signal(number)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in shown and "same command" in shown


def test_an_interruption_during_the_report_says_that_the_runs_are_saved(capsys, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    assert main(["run", "small.yaml"], Hooks(write_report=interrupt)) == 130
    assert "All runs are finished and saved" in (shown := capsys.readouterr().err)
    assert "gdkit run runs/small/config.yaml --output runs/small" in shown
    assert main(["run", "runs/small/config.yaml", "--output", "runs/small"], UNREPORTED) == 0


@pytest.mark.parametrize("call", ["sys.exit()", "sys.exit(3)", "raise SystemExit('over')", "exit(0)"])
def test_code_that_exits_is_reported_with_its_line(call, capsys, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "mine_exit", raising=False)
    (tmp_path / "mine_exit.py").write_text(f"import sys\ndef leave():\n    {call}\n")
    (tmp_path / "exit.yaml").write_text(SMALL.replace("name: parabola", "use: mine_exit:leave"), encoding="utf-8")
    assert main(["run", "exit.yaml"], UNREPORTED) == 1
    assert "mine_exit.py:3 in leave: SystemExit" in capsys.readouterr().err


# Limits


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("RLIMIT_AS", 2**30, "ulimit -v='1 GiB': JAX needs address space of at least 3 GiB"),
        ("RLIMIT_AS", 2 * 2**30, "ulimit -v='2 GiB': JAX needs address space"),
        ("RLIMIT_NOFILE", 20, "ulimit -n='20': JAX needs open files of at least 64"),
    ],
    ids=["1 GiB", "2 GiB", "20 files"],
)
def test_a_limit_below_what_jax_needs_is_named(limit, value, words):
    process = start(
        "run", "small.yaml", setup=f"import resource; resource.setrlimit(resource.{limit}, ({value}, {value}))"
    )
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 2, shown
    assert words in shown


# Names and labels


@pytest.mark.full
def test_labels_are_plain_text_in_figures_and_have_files_of_their_own(tmp_path):
    labels = ["a $x^$ b", "a b", "a-b", ".."]
    optimizers = json.dumps([{"name": "sgd", "label": label} for label in labels])
    (tmp_path / "labels.yaml").write_text(SMALL.replace('{name: sgd, label: "Größe β"}', optimizers), encoding="utf-8")
    assert main(["run", "labels.yaml", "sweep.steps=3"]) == 0
    figures = sorted(path.name for path in (tmp_path / "runs/small/figures").glob("*.png"))
    assert len(figures) == 1 + len(labels) and len(set(figures)) == len(figures)


def test_a_figure_shows_the_dollar_signs_of_a_label():
    axes = {"optimizer": {"US$ 5": sgd, "$x": sgd}, "learning_rate": [0.1, 0.2]}
    result = gdkit.sweep(problems.parabola(), None, axes, steps=3)
    figure = plots.final_loss(result).get_figure()
    figure.canvas.draw()
    shown = [text.get_text() for legend in figure.findobj(plt.matplotlib.legend.Legend) for text in legend.get_texts()]
    assert any(r"US\$ 5" in text for text in shown) and any(r"\$x" in text for text in shown)
    plt.close(figure)


# Configs


def test_a_config_is_read_from_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SMALL.encode())))
    assert main(["run", "-"], UNREPORTED) == 0
    assert gdkit.open("runs/small").missing == 0


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ('["3e-4", 0.01]', "learning_rate.0 = '3e-4': must be a number. Remove the quotes"),
        ('[0.01, "0.1"]', "learning_rate.1 = '0.1': must be a number. Remove the quotes"),
        ("{values: [0.01, fast]}", "learning_rate.values.1 = 'fast': must be a number."),
        ("0.1,0.2", "learning_rate = '0.1,0.2': must be a list of values, for example [0.1,0.2]"),
    ],
)
def test_numbers_that_are_text_are_named(axes, words, capsys, tmp_path):
    (tmp_path / "text.yaml").write_text(
        SMALL.replace("[0.1, 0.3, 2.0]", axes if axes[0] in "[{" else f"'{axes}'"), encoding="utf-8"
    )
    assert main(["check", "text.yaml"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "momentum"),
    [("{<<: {momentum: 0.5}, name: sgd}", 0.5), ("{<<: {momentum: 0.5}, name: sgd, momentum: 0.9}", 0.9),
     ("{<<: [{momentum: 0.7}, {momentum: 0.5}], name: sgd}", 0.7)],
)  # fmt: skip
def test_merge_keys_add_the_entries_that_a_mapping_does_not_set(text, momentum):
    from gdkit.app.config.loading import loads

    config = loads(SMALL.replace('{name: sgd, label: "Größe β"}', text))
    assert config.optimizer[0].fixed == {"momentum": momentum}


@pytest.mark.parametrize("output", ["taken/run", "taken/a/b", "small.yaml/run"])
def test_a_folder_below_a_file_is_refused(output, capsys, tmp_path):
    (tmp_path / "taken").write_text("a file")
    assert main(["run", "small.yaml", "--output", output, "--new"]) == 2
    assert f"{output}: {output.partition('/')[0]} is a file, and a run needs a folder" in capsys.readouterr().err


@pytest.mark.parametrize("columns", quick([40, 50, 80, 120], 40, 80, 120))
def test_the_answer_shows_every_number_at_every_width(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    undrawn = Hooks(write_report=functools.partial(write_report, draw=lambda *_: []))
    assert main(["run", "small.yaml"], undrawn) == 0
    shown = capsys.readouterr().out
    table = shown[: shown.index("Use ")]
    assert "…" not in table
    assert {"0.3", "2"} <= set(table.split())  # the best rate, and where some diverged
    assert max(map(len, table.splitlines())) <= columns
