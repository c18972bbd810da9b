"""The page on many machines: its commands run, and its code prints the output that the page shows."""

import importlib.util
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import gdkit

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")
(SWEEP,) = re.findall(r"```yaml\n# sweep\.yaml\n(.*?)```", PAGE, re.DOTALL)
(JOB,) = re.findall(r"```yaml\n# job\.yaml\n(.*?)```", PAGE, re.DOTALL)
(ARRAY,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def shared(tmp_path):
    """A folder with the config, and stand-ins for the commands of a cluster."""
    (tmp_path / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    commands = {
        "gdkit": f'exec "{sys.executable}" -m gdkit "$@"',
        "srun": 'exec "$@"',
        "scontrol": f'echo "$@" >> "{tmp_path}/requeued"',
    }
    (tmp_path / "bin").mkdir()
    for name, line in commands.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return tmp_path


def start(shared, script, **variables):
    """Start a script of the page, with the test's folder instead of /shared."""
    environment = os.environ | variables | {"PATH": f"{shared / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    words = ["sh", "-c", script.replace("/shared/", f"{shared}/")]
    return subprocess.Popen(words, cwd=shared, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait(processes):
    """Exit codes and outputs."""
    outputs = [process.communicate(timeout=300)[0].decode() for process in processes]
    return [process.returncode for process in processes], outputs


@pytest.mark.full
def test_a_task_of_the_array_and_a_pod_of_the_job_finish_the_run(shared):
    job = YAML(typ="safe").load(JOB)["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (text,) = container["args"]
    assert container["command"] == ["sh", "-c"] and job["completionMode"] == "Indexed"
    assert text.endswith(f"/{job['completions']}") and job["template"]["spec"]["restartPolicy"] == "Never"
    array = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_JOB_ID": "7"}
    pod = text.removesuffix(f"/{job['completions']}") + "/2"
    codes, outputs = wait([start(shared, ARRAY, **array), start(shared, pod, JOB_COMPLETION_INDEX="1")])
    assert codes == [0, 0], outputs
    assert gdkit.open(shared / "spread").missing == 0
    assert (shared / "spread" / "report.html").exists() and not (shared / "requeued").exists()


def test_a_terminated_task_of_the_array_is_requeued(shared):
    (shared / "bin" / "gdkit").write_text("#!/bin/sh\nexit 130\n", encoding="utf-8")  # as after SIGTERM
    variables = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_JOB_ID": "4711"}
    assert wait([start(shared, ARRAY, **variables)])[0] == [130]
    assert (shared / "requeued").read_text() == "requeue 4711\n"


@pytest.mark.full
def test_the_code_of_the_page_prints_the_output_that_it_shows(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("readme", ROOT / "docs" / "readme.py")
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    monkeypatch.chdir(tmp_path)
    outputs = list(readme.outputs(PAGE))
    assert len(outputs) == 2
    assert all(shown == printed for shown, printed in outputs)
