"""The command line: output, exit codes, and errors without tracebacks."""

import base64
import functools
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import gdkit
from gdkit.app import resources
from gdkit.app.cli import main
from gdkit.app.config.loading import dump, load, loads
from gdkit.app.config.source import ConfigError
from gdkit.app.directory import choose_folder
from gdkit.app.resources import Resources
from gdkit.app.run.estimate import Cost, build_cost_table
from gdkit.app.run.hooks import Hooks
from gdkit.app.run.outputs import write_report

ROOT = Path(__file__).parents[1]
SMALL = """\
name: small
problem: {name: parabola}
optimizer: {name: sgd}
sweep:
  axes: {learning_rate: {log: {from: 1e-2, to: 10, count: 8}}}
  steps: 20
"""

UNDRAWN = Hooks(write_report=functools.partial(write_report, draw=lambda *_: []))  # figures take longer than all else
UNREPORTED = Hooks(write_report=lambda *_: None)


def gdkit_undrawn(*words: str) -> int:
    """The exit code of a command that draws no figures."""
    return main(words, UNDRAWN)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GDKIT_DEBUG", raising=False)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for module in ("losses", "mine_problem", "watch_loss"):  # each test has its own
        monkeypatch.delitem(sys.modules, module, raising=False)


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a process of its own, from the current folder."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, check=False
    )


LIGHT = [  # words and exit code
    ("--help", 0),
    ("run --help", 0),
    ("--version", 0),
    ("schema", 0),
    ("new mine", 0),
    ("run absent.yaml", 2),
    ("run schema.yaml", 2),
    ("run syntax.yaml", 2),
    ("check small.yaml sweep.stpes=3", 2),
    ("report absent", 2),
    ("run", 2),
    ("fly", 2),
]
LOADED = """
import sys
from gdkit.app.cli import main
for words in sys.argv[1:]:
    code = main(words.split())
    heavy = sorted(m for m in ("jax", "optax", "numpy", "matplotlib", "xarray", "sklearn", "bokeh") if m in sys.modules)
    print(f"\\nRESULT {words}: {code} {heavy}")
"""


@pytest.mark.parametrize(("words", "changes"), [("['--version']", False), ("", True)])
def test_only_a_command_of_a_shell_changes_how_often_garbage_is_collected(words, changes):
    code = f"import gc; from gdkit.app.cli import main; before = gc.get_threshold(); main({words}); "
    ran = python(code + "print(before != gc.get_threshold())", "--version")
    assert ran.stdout.split()[-1] == str(changes), ran.stderr


def test_help_and_errors_of_syntax_and_schema_load_nothing_heavy():
    Path("small.yaml").write_text(SMALL)
    Path("schema.yaml").write_text(SMALL.replace("steps", "stpes"))
    Path("syntax.yaml").write_text("a: b: c")
    shown = python(LOADED, *(words for words, _ in LIGHT)).stdout
    shown = [line for line in shown.splitlines() if line.startswith("RESULT")]
    assert shown == [f"RESULT {words}: {code} []" for words, code in LIGHT]


def test_importing_gdkit_does_not_import_jax():
    assert python("import gdkit, sys; print('jax' in sys.modules)").stdout == "False\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "small.yaml", "--ouput", "x"], "Did you mean --output?"),
        (["run", "small.yaml", "--workers", "0"], "--workers=0: nothing would run"),
        (["run", "small.yaml", "--workers", "some"], "some"),
        (["run", "small.yaml", "--devices", "0"], "--devices=0: nothing would run"),
        (["run", "small.yaml", "seeds=3"], "seeds = 3: unknown key. It belongs under sweep: sweep.seeds"),
        (["run", "small.yaml", "clip_norm=3"], "It belongs under optimizer: optimizer.0.clip_norm"),
        (["run", "small.yaml", "learning_rate=0.1"], "sweep.axes.learning_rate=[...] for its values"),
        (
            ["run", "small.yaml", "sweep.axes.learning_rate=0.1"],
            "random, static. To fix the value, give it to the optimizer: optimizer.0.learning_rate=0.1.",
        ),
        (
            ["run", "small.yaml", "optimizer=adam"],
            "must be a mapping, or a list of mappings, for example {name: adam}.",
        ),
        (["run", "small.yaml", "problem=mlp"], "problem = 'mlp': must be a mapping, for example {name: mlp}."),
        (["run", "small.yaml", "sweep.monitors=sharp"], "must be a list, for example [{name: sharp}]."),
        (["completion", "tcsh"], "fish"),
        (["run", "smal.yaml"], "smal.yaml: no such file. Did you mean 'small.yaml'?"),
        (["run", "."], "this is a folder"),
        (["list", "optimisers"], "optimizers"),
        (["new", "../up"], "not a valid name"),
        (["report", "."], "not the folder of a run"),
        (["runn", "small.yaml"], "runn"),
    ],
)
def test_bad_input_exits_2_with_the_remedy(words, expected, capsys):
    Path("small.yaml").write_text(SMALL)
    assert main(words) == 2
    shown = capsys.readouterr()
    assert expected in shown.err.replace('"--output"', "--output")  # older cyclopts quotes options
    assert shown.err.startswith("error: ")
    assert shown.out == ""


def test_debug_shows_the_traceback_and_nothing_else_does(capsys, monkeypatch):
    assert main(["run", "absent.yaml"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["run", "absent.yaml", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("GDKIT_DEBUG", "1")
    assert main(["run", "absent.yaml"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_exits_130(capsys):
    Path("small.yaml").write_text(SMALL)
    interrupt = Hooks(measure_free=lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["run", "small.yaml"], interrupt) == 130
    assert capsys.readouterr().err == "interrupted before the first run. To start again, run the same command.\n"


def test_a_missing_extra_is_an_error_with_the_command_that_installs_it(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["--help"]) == 2
    assert "pip install 'gdkit[app]'" in capsys.readouterr().err


def test_a_closed_pipe_is_not_an_error():
    code = "import sys; from gdkit.app.cli import main; sys.exit(main(['schema']))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as p:
        assert p.stdout is not None
        assert p.stderr is not None
        p.stdout.close()
        assert b"Traceback" not in p.stderr.read()


def test_the_schema_is_json(capsys):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$defs"]["SweepConfig"]["properties"]["sweep"]


# gdkit new


def test_new_writes_a_config_that_is_valid_and_overwrites_nothing(capsys):
    assert main(["new", "my-study"]) == 0
    assert load("my-study.yaml").name == "my-study"
    assert "my_study_problem:problem" in Path("my-study.yaml").read_text()
    compile(Path("my_study_problem.py").read_text(), "my_study_problem.py", "exec")
    before = Path("my-study.yaml").read_text()
    capsys.readouterr()
    assert main(["new", "my-study"]) == 2
    assert "the file exists and is not overwritten" in capsys.readouterr().err
    assert Path("my-study.yaml").read_text() == before


def test_an_empty_list_of_experiments_names_the_folder(capsys):
    assert main(["list", "experiments"]) == 0
    shown = capsys.readouterr().out
    assert str(Path.cwd()) in shown and "gdkit new --example NAME" in shown


# Shells


@pytest.mark.parametrize(("shell", "begins"), [("bash", "# Bash"), ("zsh", "#compdef gdkit"), ("fish", "# Fish")])
def test_a_completion_script_is_made_for_each_shell(shell, begins, capsys):
    assert main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(begins)
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=shown, text=True, check=True)


COMPLETE = """
source gdkit.bash
for words in "$@"; do
  COMP_WORDS=($words); [[ $words == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
  _gdkit
  echo "${COMPREPLY[*]}"
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_options_kinds_and_files(capsys):
    main(["completion", "bash"])
    Path("gdkit.bash").write_text(capsys.readouterr().out)
    Path("small.yaml").write_text(SMALL)
    asked = {
        "gdkit st": "status",
        "gdkit run --li": "--live",
        "gdkit list mon": "monitors",
        "gdkit run sma": "small.yaml",
        "gdkit run small.yaml --output gd": "gdkit.bash",
        "gdkit completion z": "zsh",
    }
    shown = subprocess.run(["bash", "-c", COMPLETE, "bash", *asked], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == list(asked.values())


# The folder of a run


def test_the_default_folder_of_a_run_is_runs_name():
    config = loads(SMALL)
    assert choose_folder(config, None, new=False) == Path("runs/small")
    assert choose_folder(loads(SMALL + "output: there"), None, new=False) == Path("there")
    assert choose_folder(loads(SMALL + "output: there"), "here", new=False) == Path("here")


def test_a_folder_of_the_same_config_is_reused_and_one_of_another_config_is_rejected():
    config = loads(SMALL)
    Path("runs/small").mkdir(parents=True)
    Path("runs/small/config.yaml").write_text(dump(config))
    Path("runs/small/results.nc").touch()
    assert choose_folder(config, None, new=False) == Path("runs/small")
    assert choose_folder(loads(SMALL + "output: runs/small"), None, new=False) == Path("runs/small")
    other = loads(SMALL, ["sweep.steps=30", "optimizer.momentum=0.9"])
    with pytest.raises(
        ConfigError, match=r"another config: optimizer.0.momentum is None there and 0.9 here; sweep.steps is 20 there"
    ):
        choose_folder(other, None, new=False)
    assert choose_folder(other, None, new=True) == Path("runs/small-2")
    Path("runs/small-2").mkdir()
    assert choose_folder(other, None, new=True) == Path("runs/small-3")


def test_an_unknown_name_in_a_config_is_reported_before_a_conflict_with_its_folder(capsys):
    Path("small.yaml").write_text(SMALL)
    Path("runs/small").mkdir(parents=True)
    Path("runs/small/config.yaml").write_text(dump(loads(SMALL)))
    Path("runs/small/results.nc").touch()
    assert main(["run", "small.yaml", "optimizer.momentums=0.9"]) == 2
    assert "optimizer.momentums = 0.9: unknown key. Did you mean 'momentum'?" in capsys.readouterr().err
    assert main(["run", "small.yaml", "optimizer.momentum=0.9"]) == 2
    assert "it holds a run of another config" in capsys.readouterr().err


def test_the_folder_of_a_failed_run_is_reused():
    Path("runs/small").mkdir(parents=True)
    Path("runs/small/config.yaml").write_text(SMALL)
    assert choose_folder(loads(SMALL, ["sweep.steps=30"]), None, new=False) == Path("runs/small")


def test_a_folder_that_is_not_of_a_run_is_never_written_to():
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    Path("file").write_text("")
    for where, expected in {"mine": "not empty, and not the folder of a run", "file": "this is a file"}.items():
        with pytest.raises(ConfigError, match=expected):
            choose_folder(loads(SMALL), where, new=False)


# Names in a config are looked up before anything is compiled; errors name the line


LOSSES = """\
import jax.numpy as jnp
from gdkit import Problem

FINISHED = Problem(lambda x: jnp.sum(x**2), jnp.ones(2))

def bowl(curvature: float = 1.0):
    return Problem(lambda x: curvature * jnp.sum(x**2), jnp.ones(2), optimum=0.0)

def needy(data):
    raise AssertionError("never called")

def wrong():
    return 3

def failing():
    raise RuntimeError("no luck today")

def vector():
    return Problem(lambda x: x, jnp.ones(2))

def bad_loss():
    return Problem(lambda x: undefined(x), jnp.ones(2))
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: sgd", "name: sdg", "small.yaml:3: optimizer.name = 'sdg': no such name. Did you mean 'sgd'?"),
        ("name: sgd", "name: sophia", "small.yaml:3: optimizer='sophia': it needs obj_fn"),
        (
            "name: sgd",
            "name: sgd, momentun: 0.9",
            "small.yaml:3: optimizer.momentun = 0.9: unknown key. Did you mean 'momentum'?",
        ),
        ("name: sgd", "name: sgd, nesterov: yes", "small.yaml:3: optimizer.nesterov = 'yes': must be true or false"),
        ("name: sgd", "name: sgd, momentum: 0,9", "small.yaml:3"),
        (
            "name: sgd",
            "name: sgd, learning_rate: 1e-3x",
            "small.yaml:3: optimizer.learning_rate = '1e-3x': must be a number",
        ),
        ("name: sgd", "name: noisy_sgd, b1: 0.5", "small.yaml:3: optimizer.b1 = 0.5: unknown key"),
        (
            "learning_rate:",
            "learning_rat:",
            "small.yaml:5: sweep.axes.learning_rat: sgd takes no learning_rat. Did you mean 'learning_rate'?",
        ),
        (
            "axes: {learning_rate: {log: {from: 1e-2, to: 10, count: 8}}}",
            "axes: {}",
            "small.yaml:3: optimizer: sgd needs learning_rate",
        ),
        (
            "from: 1e-2, to: 10, count: 8}}",
            "from: 1e-2, to: 10, count: 8}}, mu: [1.0]",
            "small.yaml:5: sweep.axes.mu: sgd takes no mu",
        ),
        (
            "name: parabola",
            "name: parabla",
            "small.yaml:2: problem.name = 'parabla': no such name. Did you mean 'parabola'?",
        ),
        ("name: parabola", "name: mlp, widht: [3]", "small.yaml:2: problem.widht: unknown key. Did you mean 'widths'?"),
        ("name: parabola", "name: mlp, widths: [a]", "small.yaml:2: widths"),
        ("name: parabola", "name: mlp, data: digit", "small.yaml:2: data='digit'"),
        ("name: parabola", "name: mlp, data: {file: absent.csv, target: y}", "absent.csv"),
        (
            "name: parabola",
            "use: absent_module:f",
            "small.yaml:2: problem.use = 'absent_module:f': no module 'absent_module' in",
        ),
        (
            "name: parabola",
            "use: losses:bowll",
            "small.yaml:2: problem.use = 'losses:bowll': losses has no 'bowll'. Did you mean 'bowl'?",
        ),
        (
            "name: parabola",
            "use: losses:bowl, curvatur: 2.0",
            "small.yaml:2: problem.curvatur = 2.0: unknown key. Did you mean 'curvature'?",
        ),
        ("name: parabola", "use: losses:FINISHED, a: 1", "a Problem takes no arguments"),
        ("name: parabola", "use: losses:LOSS", "small.yaml:2"),
        ("name: parabola", "use: losses:wrong", "it returned int, not gdkit.Problem"),
        ("name: parabola", "use: losses:needy", "missing 1 required positional argument"),
        (
            "steps: 20",
            "steps: 20\nthresholds: {converged: 1}",
            "small.yaml:7: thresholds.converged = 1: unknown key. Did you mean 'converged_gap'?",
        ),
    ],
)
def test_names_and_arguments_are_checked_with_their_line(old, new, expected, capsys):
    Path("losses.py").write_text(LOSSES)
    assert old in SMALL
    Path("small.yaml").write_text(SMALL.replace(old, new))
    assert main(["run", "small.yaml"]) == 2
    assert expected in capsys.readouterr().err
    assert not Path("runs").exists()


def test_an_error_of_the_library_names_the_line_of_its_argument(capsys):
    Path("losses.py").write_text(LOSSES)
    Path("small.yaml").write_text(SMALL.replace("name: parabola", "use: losses:vector"))
    assert gdkit_undrawn("run", "small.yaml") == 2
    assert "error: small.yaml:2: loss=(2,): it does not return a scalar" in capsys.readouterr().err
    assert gdkit_undrawn("run", "small.yaml", "problem.use=losses:bowl", "sweep.axes.learning_rate=[-1.0, 1.0]") == 2
    assert "override 'sweep.axes.learning_rate=[-1.0, 1.0]': axes['learning_rate']=-1.0" in capsys.readouterr().err
    assert gdkit_undrawn("run", "small.yaml", "problem.use=losses:bowl") == 0  # the folder of the failed run is reused
    assert "not finished" in Path("runs/small/log.txt").read_text()


@pytest.mark.parametrize(
    ("factory", "place", "expected"),
    [
        ("losses:failing", "losses.py:16 in failing", "RuntimeError: no luck today"),
        ("losses:bad_loss", "losses.py:22 in <lambda>", "NameError: name 'undefined' is not defined"),
    ],
)
def test_an_exception_of_the_users_code_is_shown_with_the_users_line(factory, place, expected, capsys):
    Path("losses.py").write_text(LOSSES)
    Path("small.yaml").write_text(SMALL.replace("name: parabola", f"use: {factory}"))
    assert main(["run", "small.yaml"]) == 1
    shown = capsys.readouterr().err
    assert f"error: {place}: {expected}" in shown.splitlines()
    assert "Traceback" not in shown
    assert "gdkit/" not in shown


def test_a_module_of_the_user_that_cannot_be_imported_is_shown_with_its_line(capsys):
    Path("unfinished.py").write_text("def f(:\n")
    Path("small.yaml").write_text(SMALL.replace("name: parabola", "use: unfinished:f"))
    assert main(["run", "small.yaml"]) == 1
    assert "unfinished.py:1: SyntaxError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("optimizers", "adamw "),
        ("problems", "rosenbrock "),
        ("monitors", "sharpness_every"),
        ("data", "classification: 569 rows of 30, 2 classes"),
        ("experiments", "experiments.mine:run  What happens."),
    ],
)
def test_names_for_configs_are_listed(kind, expected, capsys):
    Path("experiments").mkdir()
    Path("experiments/mine.py").write_text('"""What happens."""\n\ndef run(settings):\n    raise AssertionError\n')
    Path("experiments/helper.py").write_text("x = 1\n")
    assert main(["list", kind]) == 0
    shown = capsys.readouterr().out
    assert expected in shown
    assert "helper" not in shown


# Runs, from a config to an answer


def test_a_run_prints_its_answer_and_writes_everything(capsys):
    Path("small.yaml").write_text(SMALL)
    assert main(["run", "small.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "Use sgd with learning rate" in shown
    assert "runs/small/report.html" in shown
    assert load("runs/small/config.yaml") == load("small.yaml")
    report = Path("runs/small/report.html").read_text()
    assert "data:image/" in report
    assert "default-src 'none'" in report  # works offline: nothing may be loaded
    assert not re.search(r'(?:src|href)="(?!data:)', report)
    assert "Use sgd with learning rate" in Path("runs/small/log.txt").read_text()
    assert gdkit.open("runs/small").lanes.sizes["lane"] == 8
    drawn = sorted(path.stem for path in Path("runs/small/figures").glob("*.png"))
    assert drawn == sorted(path.stem for path in Path("runs/small/figures").glob("*.svg")) != []


def test_a_finished_run_is_only_overwritten_by_the_same_config(capsys):
    Path("small.yaml").write_text(SMALL)
    assert gdkit_undrawn("run", "small.yaml") == 0
    before = gdkit.open("runs/small").lanes
    assert gdkit_undrawn("run", "small.yaml") == 0
    assert before.equals(gdkit.open("runs/small").lanes)
    assert gdkit_undrawn("run", "small.yaml", "sweep.steps=30") == 2
    assert "sweep.steps is 20 there and 30 here" in capsys.readouterr().err
    assert gdkit_undrawn("run", "small.yaml", "sweep.steps=30", "optimizer.momentun=0.9") == 2
    shown = capsys.readouterr().err
    assert "Did you mean 'momentum'?" in shown  # reported first: correcting it may change which folder fits
    assert "another config" not in shown
    assert gdkit_undrawn("run", "small.yaml", "sweep.steps=30", "--new") == 0
    assert gdkit.open("runs/small-2").lanes.attrs["steps"] == 30
    assert gdkit.open("runs/small").lanes.attrs["steps"] == 20


@pytest.mark.full
def test_o_abbreviates_output_only(capsys):
    Path("small.yaml").write_text(SMALL)
    assert gdkit_undrawn("run", "small.yaml", "-o", "there") == 0
    assert Path("there/report.html").exists()
    assert main(["report", "there", "-o", "one.html"]) == 2
    assert "--output='one.html': the report of a single run is written to its folder" in capsys.readouterr().err
    assert gdkit_undrawn("run", "small.yaml", "--output=-o") == 0
    assert Path("-o/report.html").exists()


def test_a_run_that_does_not_fit_is_refused_with_the_numbers_unless_it_is_to_start_anyway(capsys):
    Path("small.yaml").write_text(SMALL)
    scarce = UNREPORTED._replace(measure_free=lambda folder: Resources(memory=2**20, disk=100))
    for command in ("run", "check"):
        assert main([command, "small.yaml"], scarce) == 2
        shown = capsys.readouterr().err
        assert re.search(r"sweep='8 runs': it needs at least [\d.]+ [MG]iB of memory, and 1 MiB are free", shown)
        assert re.search(r"and 5\d\d KiB of disk, and 100 B are free", shown)
        assert "Lower sweep.curve_points" in shown
    assert not Path("runs").exists()
    full_disk = UNREPORTED._replace(measure_free=lambda folder: Resources(memory=2**50, disk=100))
    assert main(["run", "small.yaml"], full_disk) == 2
    assert "of disk" in (shown := capsys.readouterr().err) and "of memory" not in shown
    assert "or start the run regardless with --anyway" in shown
    assert main(["run", "small.yaml", "--anyway"], full_disk) == 0
    minimum = resources.estimate_minimum(8, 21).disk  # enough for the minimum, and not for the likely peak
    assert main(["check", "small.yaml"], Hooks(measure_free=lambda folder: Resources(2**50, minimum))) == 0
    expected = r"warning: the run may not fit: it is likely to need [\d.]+ KiB of disk"
    assert re.search(expected, capsys.readouterr().err)


def test_free_resources_are_those_of_this_machine_and_of_the_nearest_existing_folder(tmp_path):
    free, peak = resources.measure_free(tmp_path / "not" / "there"), resources.measure_peak_memory()
    assert free.disk == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert peak < free.memory < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + peak
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "tile0.npz").write_bytes(bytes(2**20))  # a resumed run has used this already
    disk = shutil.disk_usage(tmp_path).free + 2**20
    assert resources.measure_free(tmp_path).disk == pytest.approx(disk, rel=0.1)


@pytest.mark.parametrize(
    ("entry", "limits", "left"),
    [
        ("0::/\n", {"memory.max": "max", "memory.current": "5"}, math.inf),
        ("0::/\n", {"memory.max": "70", "memory.current": "5"}, 65),
        ("0::/job_7/step_0\n", {"job_7/memory.max": "50", "job_7/memory.current": "20"}, 30),  # as Slurm has it
        ("0::/job_7\n", {"memory.max": "9", "memory.current": "8", "job_7/memory.max": "5"}, 1),
        ("4:cpu:/\n3:memory:/a\n0::/\n", {f"memory/a/memory.{n}_in_bytes": "7" for n in ("limit", "usage")}, 0),
        ("0::/\n", {"memory.max": "70", "memory.current": "60", "memory.stat": "anon 9\ninactive_file 40"}, 50),
        ("0::/gone\n", {}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_memory_beyond_the_limit_of_a_control_group_is_not_free(tmp_path, entry, limits, left):
    (tmp_path / "own").write_text(entry)
    for name, value in limits.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    assert resources.measure_group_memory(tmp_path / "groups", tmp_path / "own") == left
    assert resources.measure_group_memory(tmp_path / "groups", tmp_path / "nowhere") == math.inf


@pytest.mark.full
def test_check_predicts_the_size_of_a_run_directory(capsys):
    Path("some.yaml").write_text(SMALL.replace("{name: parabola}", "{name: mlp, data: iris, widths: [32]}"))
    assert main(["check", "some.yaml"]) == 0
    (size, unit) = re.search(r"disk +about ([\d.]+) ([KM]iB) at most", capsys.readouterr().out).groups()
    predicted = float(size) * {"KiB": 2**10, "MiB": 2**20}[unit]
    assert main(["run", "some.yaml"], UNREPORTED) == 0
    used = sum(p.stat().st_size for part in ("tiles", "lanes") for p in Path("runs/small", part).rglob("*.npz"))
    assert 0.5 * used < predicted - resources.estimate_report(lanes=8) < 3 * used


MONITORS = """\
import jax.numpy as jnp
from gdkit.monitors import Monitor

def largest(scale: float = 1.0):
    return Monitor(
        lambda state: jnp.zeros(()),
        lambda m, before, after, info, context: jnp.maximum(m, scale * info.loss),
        lambda m: {"largest_loss": m},
    )

def wrong():
    return 3
"""
WATCHED = """\
name: watched
problem: {name: quadratic, eigenvalues: [1.0, 4.0]}
optimizer: {name: sgd, momentum: 0.5}
sweep:
  axes: {learning_rate: [0.1, 0.3]}
  steps: 100
  curve_points: 8
  monitors:
    - {name: sharpness_every, every: 10}
    - {name: lyapunov_exponent, burn_in: 50}
    - {name: time_to, target: 0.1}
    - {name: time_to, target: 1e-3}
    - {use: watch_loss:largest, scale: 2.0}
"""


@pytest.mark.full
def test_monitors_of_a_config_get_its_problem_and_optimizer(capsys):
    Path("watch_loss.py").write_text(MONITORS)
    Path("watched.yaml").write_text(WATCHED)
    assert gdkit_undrawn("run", "watched.yaml") == 0
    lanes = gdkit.open("runs/watched").lanes
    assert lanes["sharpness"].values == pytest.approx([4.0, 4.0], rel=1e-4)
    assert lanes["sharpness_curve"].shape == (2, 8)  # at most as many points as the loss curve
    for rate, measured in zip([0.1, 0.3], lanes["lyapunov_exponent"].values, strict=True):
        # heavy ball on a quadratic: the largest root of z² − (1 + β − ηλ) z + β
        roots = [max(abs(np.roots([1, -(1.5 - rate * curvature), 0.5]))) for curvature in (1.0, 4.0)]
        assert measured == pytest.approx(np.log(max(roots)), abs=0.02)
    assert np.all((lanes["time_to_0.1"] > 0) & (lanes["time_to_0.1"] < lanes["time_to_0.001"]))
    assert lanes["largest_loss"].values == pytest.approx(2 * lanes["max_loss"].values)
    page = Path("runs/watched/report.html").read_text()
    assert '"what":"sharpness","steps":[0,10,20,30,40,50,60,70]' in page


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [
        ("{name: sharpnes_every, every: 3}", "monitors.0.name = 'sharpnes_every': no such name. Did you mean"),
        ("{name: sharpness_every}", "small.yaml:7: sweep.monitors.0: sharpness_every needs every. Give it here."),
        ("{name: sharpness_every, evry: 3}", "sweep.monitors.0.evry = 3: unknown key. Did you mean 'every'?"),
        ("{name: sharpness_every, every: often}", "sweep.monitors.0.every = 'often': must be a number"),
        ("{name: sharpness_every, every: 0}", "small.yaml:7: every=0"),
        ("{name: sharpness_every, every: 3, problem: 4}", "sweep.monitors.0.problem = 4: unknown key"),
        ("{name: time_to, target: 1.0}, {name: time_to, target: 1.0}", "monitors.1: a second time_to would compute"),
        ("{name: lyapunov_exponent}", "lyapunov_exponent needs a single optimizer, and there are 2. Keep one"),
        ("{use: watch_loss:wrong}", "it returned int, not a gdkit.monitors.Monitor"),
        ("{use: watch_loss:absent}", "watch_loss has no 'absent'"),
        ("{use: watch_loss:largest, scal: 2.0}", "unknown key. Did you mean 'scale'?"),
        ("{every: 3}", "small.yaml:7: sweep.monitors.0: give either name (built-in) or use"),
        ("sharpness_every", "sweep.monitors.0 = 'sharpness_every': must be a mapping"),
    ],
)
def test_errors_in_monitors_name_their_line(monitor, expected, capsys):
    Path("watch_loss.py").write_text(MONITORS)
    two = SMALL.replace("{name: sgd}", "[{name: sgd}, {name: adam}]")
    Path("small.yaml").write_text(f"{two}  monitors: [{monitor}]\n")
    assert main(["check", "small.yaml"]) == 2
    assert expected in capsys.readouterr().err


def test_a_report_is_rewritten(capsys):
    Path("small.yaml").write_text(SMALL)
    assert gdkit_undrawn("run", "small.yaml") == 0
    first = Path("runs/small/report.html").read_text()
    Path("runs/small/report.html").unlink()
    assert gdkit_undrawn("report", "runs/small") == 0
    assert len(Path("runs/small/report.html").read_text()) == pytest.approx(len(first), rel=0.01)


def test_the_starter_runs_unchanged():
    assert main(["new", "mine"]) == 0
    assert gdkit_undrawn("run", "mine.yaml", "sweep.steps=50") == 0
    assert {"sgd", "momentum", "adam"} == set(gdkit.open("runs/mine").optimizers)


HALF_SQUARE = """\
import jax, jax.numpy as jnp
import gdkit

@jax.custom_vjp
def half_square(x):
    return 0.5 * x**2

half_square.defvjp(lambda x: (half_square(x), x), lambda x, g: (FACTOR * x * g,))
PROBLEM = gdkit.Problem(lambda p: jnp.sum(half_square(p["w"])) + p["b"] ** 2, {"w": jnp.array([1.0, 2.0]), "b": 1.0})
"""


def test_each_column_of_check_has_its_value_and_the_table_fits_80_characters():
    cost = Cost("adamw-cosine", 1, 93, 12, 8, "rule", 3 * 2**20, 0, 0, 0, 0, 2.34, 1.5e-3)
    table = build_cost_table([cost])
    columns = {str(column.header).replace("\n", " "): list(column.cells) for column in table.columns}
    assert columns == {
        "optimizer": ["adamw-cosine"],
        "programs": ["1"],
        "runs": ["93"],
        "blocks": ["12"],
        "runs per block": ["8"],
        "memory per block": ["3 MiB"],
        "compile time": ["2.3 s"],
        "time per block step": ["1.5 ms"],
    }
    console = Console(width=80)
    with console.capture() as captured:
        console.print(table)
    assert "adamw-cosine" in captured.get()


@pytest.mark.parametrize(("factor", "code", "right"), [(1.0, 0, "2 of 2"), (2.0, 1, "1 of 2")])
def test_check_finds_a_wrong_derivative_rule_in_the_users_loss(factor, code, right, capsys):
    name = f"half_square_{factor:.0f}"
    Path(f"{name}.py").write_text(HALF_SQUARE.replace("FACTOR", str(factor)))
    Path("small.yaml").write_text(SMALL.replace("name: parabola", f"use: {name}:PROBLEM"))
    assert main(["check", "small.yaml"]) == code
    shown = capsys.readouterr()
    assert f"agrees with central differences in {right} params arrays" in shown.out
    assert "nothing has been run" in shown.out and not Path("runs").exists()
    if code:
        assert re.search(r"\['w'\] .* WRONG", shown.out) and re.search(r"\['b'\] .* right", shown.out)
        assert "custom derivative rules" in shown.err


EVERY_AXIS = """\
name: every
problem: {use: losses:bowl}
optimizer:
  - {name: sgd, label: "a <b> & c"}
  - {name: sgd, momentum: 0.9, nesterov: true, label: nesterov, clip_norm: 1.0}
  - {name: adam, learning_rate: 0.1, schedule: {name: warmup_cosine, warmup: 0.2}, b1: [0.5, 0.9]}
  - {name: adamw, nesterov: {static: [true, false]}}
sweep:
  axes:
    learning_rate: {random: {from: 1e-2, to: 1, count: 3}}
    problem.curvature: {linear: {from: 1, to: 2, count: 2}}
  steps: 5
thresholds: {converged_gap: 0.5}
"""


@pytest.mark.full
def test_every_kind_of_axis_runs(capsys):
    Path("losses.py").write_text(LOSSES)
    Path("every.yaml").write_text(EVERY_AXIS)
    assert gdkit_undrawn("run", "every.yaml") == 0
    result = gdkit.open("runs/every")
    counts = {name: result.select(optimizer=name).lanes.sizes["lane"] for name in result.optimizers}
    assert counts == {"a <b> & c": 6, "nesterov": 6, "adam": 4, "adamw": 12}
    assert result.thresholds.converged_gap == 0.5
    assert "a &lt;b&gt; &amp; c" in Path("runs/every/report.html").read_text()


def test_a_sweep_of_which_every_run_diverges_has_a_report(capsys):
    Path("small.yaml").write_text(SMALL)
    assert gdkit_undrawn("run", "small.yaml", "sweep.axes.learning_rate=[5.0, 9.0]") == 0
    assert "Every run diverged" in capsys.readouterr().out
    assert "Every run diverged" in Path("runs/small/report.html").read_text()


@pytest.mark.full
def test_float64_is_enabled_by_the_config():
    Path("small.yaml").write_text(SMALL + "precision: float64\n")
    code = """
import sys
from gdkit.app.cli import main
from gdkit.app.run.hooks import Hooks
print(main(sys.argv[1:], Hooks(write_report=lambda *_: None)), sys.modules["jax"].numpy.ones(1).dtype)
"""
    words = ["run", "small.yaml", "sweep.axes.learning_rate=[0.1]"]  # one value: nothing to draw
    assert python(code, *words).stdout.splitlines()[-1] == "0 float64"
    assert gdkit.open("runs/small").lanes["final_loss"].dtype == "float64"


STUDY = """\
from typing import NamedTuple
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from gdkit.errors import unknown_name

class Claim(NamedTuple):
    text: str
    source: str
    expected: float
    tolerance: float
    measured: float
    holds: bool

def run(settings):
    for name in settings:
        if name not in ("value", "broken"):
            raise unknown_name("settings", name, ["value"])
    return Found(settings["value"])

def plot(result):
    "The result as a line, and as a film."
    figure = Figure()
    (line,) = figure.subplots().plot([0, result])
    film = FuncAnimation(figure, lambda k: line.set_ydata([k, result]) or (line,), frames=3)
    return {"a line": figure, "a film": film}

def claims(result):
    return [Claim("it is above 1", "thought", 2, 1, result, result > 1)]

class Found(int):
    def __str__(self):
        return f"found: {int(self)}"
"""


@pytest.mark.parametrize(
    ("settings", "code", "expected"),
    [
        ("{value: 2}", 0, ""),
        ("{value: 0}", 1, "error: study: 1 claim failed: it is above 1\n"),
        ("{broken: 2}", 1, "error: losses.py:18 in run: KeyError: 'value'\n"),
        ("{vale: 2}", 2, "error: study.yaml:3: settings='vale': no such name. Did you mean 'value'?\n"),
    ],
)
def test_a_study_reports_whether_its_claims_hold(settings, code, expected, capsys):
    Path("losses.py").write_text(STUDY)
    Path("study.yaml").write_text(f"name: study\nexperiment: losses:run\nsettings: {settings}\n")
    assert main(["run", "study.yaml"]) == code
    assert capsys.readouterr().err == expected
    assert Path("runs/study/report.html").exists() == (code == 0 or "failed" in expected)
    assert Path("runs/study/figures/a-line.svg").exists() == Path("runs/study/report.html").exists()
    if code == 0:
        film = base64.b64encode(Path("runs/study/figures/a-film.gif").read_bytes()).decode("ascii")
        page = Path("runs/study/report.html").read_text(encoding="utf-8")
        assert f"data:image/gif;base64,{film}" in page
        captions = re.findall("<figcaption>(.*?)</figcaption>", page)
        assert captions == ["The result as a line, and as a film."]  # of the first figure
    if Path("runs/study/claims.json").exists():
        (claim,) = json.loads(Path("runs/study/claims.json").read_text())
        assert (claim["text"], claim["holds"]) == ("it is above 1", code == 0)
        page = Path("runs/study/report.html").read_text()
        assert f"gdkit {gdkit.__version__}, jax {importlib.metadata.version('jax')}" in page
        assert Path("runs/study/found.txt").read_text() == f"found: {2 * claim['holds']}\n"


# Fuzz: any file and any words give an exit code and no traceback


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_file_exits_2_without_a_traceback(capsys, content):
    Path("fuzz.yaml").write_bytes(content)
    assert main(["check", "fuzz.yaml"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "Traceback" not in shown


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(max_size=8) | st.sampled_from(["run", "small.yaml", "a=b", "--new", "--output", "-x", "--"]), max_size=5
    )
)
def test_any_words_exit_without_a_traceback(capsys, words):
    Path("small.yaml").write_text("name: small")  # valid YAML, and never a config
    assert main(["check", *words]) in (0, 2)  # 0: help
    assert "Traceback" not in capsys.readouterr().err
