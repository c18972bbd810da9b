"""Counting what compiled programs do, and ``gdkit check --device``."""

import json
import re
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gdkit import problems
from gdkit.app.cli import main
from gdkit.sweeps.programs import targets
from gdkit.sweeps.programs.groups import compile_absent, trace_groups
from gdkit.sweeps.programs.kernels import Counter, Work, count_per_step
from gdkit.sweeps.request import check_request

H200 = Path(__file__).parents[1] / "benchmarks/results/nvidia-h200-16-cores-plain.json"

CONFIG = """
name: small
problem: {name: parabola}
optimizer: {name: sgd, learning_rate: {log: {from: 0.01, to: 1.2, count: 6}}}
sweep: {steps: 20}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "small.yaml"
    path.write_text(textwrap.dedent(CONFIG))
    return str(path)


def test_device_here_counts_and_times_the_steps_of_this_machine(config, capsys):
    assert main(["check", config, "--device", "here"]) == 0
    shown = capsys.readouterr().out
    kernels, copies, syncs = map(float, re.search(r"sgd +(\S+)  +(\S+)  +(\S+)  +\S+ \w+  +\S+ µs", shown).groups())
    assert kernels > 1 and copies < kernels and syncs == 1  # one per step, since a CPU makes no strides
    assert re.search(r"6 runs of 20 steps on \w+; nothing has been run", shown)
    assert "measured" in shown


@pytest.mark.full
def test_loops_of_random_numbers_are_not_taken_for_that_of_the_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    config = tmp_path / "iris.yaml"
    config.write_text(
        "name: iris\nproblem: {name: mlp, data: iris, widths: [4], batch_size: 8}\noptimizer: {name: sgd}\n"
        "sweep: {axes: {learning_rate: [0.01, 0.1]}, seeds: 2, steps: 20}\n"
    )
    assert main(["check", str(config), "--device", "here"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"sgd +4 +\d +\d +\S+ \w+ +[\d,]+ *\n", shown)  # all columns, in 80 characters
    assert float(re.search(r"sgd +(\S+)  +(\S+)  +1  ", shown)[1]) > 10  # kernels of a step with its minibatch


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_device_whose_compiler_is_missing_is_refused_with_the_package(config, capsys, name):
    if targets.is_installed(name):
        pytest.skip(f"the compiler for {name} is installed")
    assert main(["check", config, "--device", name]) == 2
    extra = "tpu" if name.startswith("v") else "cuda"
    assert f"pip install 'gdkit[{extra}]'" in capsys.readouterr().err


def test_an_unknown_device_is_refused(config, capsys):
    assert main(["check", config, "--device", "h300"]) == 2
    assert "h300" in capsys.readouterr().err


def test_kernels_of_a_loop_count_once_per_iteration():
    """Written down by hand as XLA schedules it: windows, strides of 4 steps, 6 kernels per step, a loop in the last."""
    kernels = "\n".join(f"  %k{i} = f32[8]{{0}} fusion(%x), kind=kLoop, calls=%f" for i in range(5))
    inner = '%w = f32[8]{0} while(%x), condition=%c, body=%step, backend_config={"known_trip_count":{"n":"4"}}'
    text = f"""
%f (p: f32[8]) -> f32[8] {{
  %p = f32[8]{{0}} parameter(0)
}}
%step (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
{kernels}
  ROOT %copy = f32[8]{{0}} copy(%k4)
}}
%stride (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  %sample = f32[8]{{0}} fusion(%x), kind=kLoop, calls=%f
  ROOT {inner}
}}
%c (x: f32[8]) -> pred[] {{
  %x = f32[8]{{0}} parameter(0)
  ROOT %less = pred[] fusion(%x), kind=kLoop, calls=%f
}}
%windows (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  ROOT %strides = f32[8]{{0}} while(%x), condition=%c, body=%stride
}}
ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  ROOT %all = f32[8]{{0}} while(%x), condition=%c, body=%windows
}}
"""
    work = count_per_step(text, 4)
    # per step 5 kernels and a copy, in one launch as a graph; per stride a sample, a condition, and a synchronization
    assert work[:4] == (6 + 2 / 4, 1, 1 + 2 / 4, 1 / 4)
    assert work.bytes == 6 * 64 + (64 + 33) / 4


def test_copies_of_the_carry_are_those_of_arrays_that_a_loop_carries():
    text = """
%c (x: (s32[], f32[2,8])) -> pred[] {
  %x = (s32[], f32[2,8]{1,0}) parameter(0)
  ROOT %go = pred[] fusion(%x), kind=kLoop, calls=%f
}
%b (x: (s32[], f32[2,8])) -> (s32[], f32[2,8]) {
  %x = (s32[], f32[2,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%x), index=0
  %y = f32[2,8]{1,0} get-tuple-element(%x), index=1
  %count = s32[] copy(%i)
  %carried = f32[2,8]{0,1} copy(%y)
  %zeros = f32[8]{0} fusion(%y), kind=kLoop, calls=%f
  %other = f32[8]{0} copy(%zeros)
  %zero = f32[] constant(0)
  %start = f32[2,8]{1,0} fusion(%zero), kind=kLoop, calls=%f
  %fixed = f32[2,8]{1,0} copy(%start)
  ROOT %next = (s32[], f32[2,8]{1,0}) tuple(%count, %carried)
}
ENTRY %main (x: (s32[], f32[2,8])) -> (s32[], f32[2,8]) {
  %x = (s32[], f32[2,8]{1,0}) parameter(0)
  ROOT %all = (s32[], f32[2,8]{1,0}) while(%x), condition=%c, body=%b
}
"""
    counter = Counter(text)
    (loop,) = counter.find_loops(counter.entry)
    work = counter.count_loop(loop)
    assert (work.copies, work.carry_copies) == (4, 1)  # fixed depends on nothing that is carried


TPU_LOOP = """
%c (x: (s32[], f32[8])) -> pred[] {{
  {constants}
  %x = (s32[]{{:T(128)}}, f32[8]{{0:T(128)}}) parameter(0)
  %i = s32[]{{:T(128)}} get-tuple-element(%x), index=0
  ROOT %go = pred[]{{:T(512)}} compare(%i, %n), direction={direction}
}}
%b (x: (s32[], f32[8])) -> (s32[], f32[8]) {{
  ROOT %x = (s32[]{{:T(128)}}, f32[8]{{0:T(128)}}) parameter(0)
}}
ENTRY %main (x: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %x = (s32[]{{:T(128)}}, f32[8]{{0:T(128)}}) parameter(0)
  ROOT %all = (s32[]{{:T(128)}}, f32[8]{{0:T(128)}}) while(%x), condition=%c, body=%b
}}
"""


@pytest.mark.parametrize(
    ("constants", "direction", "length"),
    [
        ("%n = s32[]{:T(128)} constant(8)", "LT", 8),
        ("%n = s32[]{:T(128)} constant(300)", "LT", 300),
        ("%n = s32[]{:T(128)} constant(8)", "LE", None),  # it counts from somewhere else
        ("%n = s32[]{:T(128)} get-tuple-element(%x), index=0", "LT", None),
    ],
)
def test_loops_of_a_tpu_have_the_length_that_their_condition_compares_with(constants, direction, length):
    counter = Counter(TPU_LOOP.format(constants=constants, direction=direction))
    (loop,) = counter.find_loops(counter.entry)
    assert counter.find_length(loop) == length


@pytest.mark.parametrize("steps", [3, 10])
@pytest.mark.parametrize("products", [1, 3])
def test_products_of_a_scan_are_counted_in_what_xla_compiles(steps, products):
    def scan(x):
        def body(x, _):
            for _ in range(products):
                x = jnp.tanh(x @ x)
            return x, None

        return jax.lax.scan(body, x, length=steps)[0]

    text = jax.jit(scan).lower(jnp.zeros((64, 64))).compile().as_text()
    counter = Counter(text)
    (loop,) = counter.find_loops(counter.entry)
    work = Work().plus(counter.count_loop(loop), 1 / steps)
    assert 2 * products <= work.kernels <= 4 * products + 4
    assert work.syncs == 0
    assert work.bytes >= products * 3 * 64 * 64 * 4


def test_the_model_of_time_reproduces_what_was_measured_on_an_h200():
    measured = json.loads(H200.read_text())["parts"]
    find = lambda part, title, flavour: next(
        peer["seconds"] / measured[part]["result"]["steps"]
        for peer in measured[part]["result"]["peers"]
        if (peer["title"], peer["flavour"]) == (title, flavour)
    )
    counted = {  # in the programs of these rows, compiled for an H200; by hand digits takes 53 MB per step
        ("scalar", "jit(vmap(scan))", "bare"): Work(2, 0, 2, 0, 5e6),
        ("digits_mlp", "jit(vmap(scan))", "bare"): Work(25, 0, 1, 0, 5.3e7),
        ("digits_mlp", "gdkit", "all"): Work(46, 8, 3, 1, 6.9e7),
    }
    for row, work in counted.items():
        np.testing.assert_allclose(targets.estimate_seconds(work, targets.TARGETS["h200"]), find(*row), rtol=0.05)


def test_a_model_of_time_grows_with_each_kind_of_work():
    h200 = targets.TARGETS["h200"]
    base = Work(10, 0, 1, 0, 1e6)
    slower = [base._replace(kernels=20), base._replace(launches=5), base._replace(syncs=1), base._replace(bytes=1e10)]
    seconds = targets.estimate_seconds(base, h200)
    assert all(targets.estimate_seconds(work, h200) > seconds for work in slower)
    tpu = targets.TARGETS["v5e"]
    np.testing.assert_allclose(targets.estimate_seconds(base, tpu), 1e6 / tpu.bandwidth)  # at least


@pytest.mark.parametrize("name", ["h200", "v5e"])
def test_a_program_for_an_absent_device_has_strides_of_known_length(config, capsys, name):
    if not targets.is_installed(name):
        pytest.skip(f"no compiler for {name}: pip install 'gdkit[cuda,tpu]'")
    assert main(["check", config, "--device", name]) == 0
    syncs = float(re.search(r"sgd.* (\S+)  +\S+ \w+  +\S+ \S?s", capsys.readouterr().out)[1])
    assert syncs == 1 / 8


@pytest.mark.full
@pytest.mark.parametrize("name", ["h200", "a100"])
def test_no_step_of_a_network_on_a_gpu_copies_what_its_loop_carries(name):
    if not targets.is_installed(name):
        pytest.skip(f"no compiler for {name}: pip install 'gdkit[cuda]'")
    problem = problems.mlp("digits", widths=(16,), batch_size=32)
    request = check_request(problem, optax.adam, {"learning_rate": np.linspace(0.01, 0.1, 64)}, steps=300)
    (group,) = trace_groups(request)
    (program,) = compile_absent(request, group, targets.get_device(name)).programs
    work = count_per_step(program.advance.as_text(), program.layout.stride)
    assert work.kernels > 10
    assert work.carry_copies == 0
