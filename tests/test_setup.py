"""The decisions of scripts/setup on simulated machines; what is packaged; and what the files must not contain."""

import ast
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

import gdkit

ROOT = Path(__file__).parent.parent
TOOLS = ("sh", "cat", "cksum", "cp", "dirname", "id", "ln", "ls", "mkdir", "readlink", "rm", "sed", "sleep", "tail")
GOOD = "3 12 CPython 64 Linux x86_64 glibc 2 36"

# A Python in a few lines: it tells the given facts, makes environments if the world lets it, and logs what pip gets.
PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c "*struct*) echo "{facts}" ;;
    "-c import ensurepip"*) [ -e "$WORLD/has-venv" ] ;;
    "-m venv")
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
        if [ -e "$WORLD/kill-venv" ]; then kill -9 $PPID; fi ;;
    "-m pip")
        [ "$3" = install ] || exit 0
        echo "pip $*" >>"$WORLD/log"
        if [ -e "$WORLD/kill-pip" ]; then touch "$WORLD/repo of mine/.venv/half"; kill -9 $PPID; fi
        if [ -e "$WORLD/slow" ]; then sleep 0.3; fi
        [ ! -e "$WORLD/offline" ] ;;
esac
"""


class Machine:
    """A made-up machine: a folder of commands is its whole PATH, and the set-up lies in a path with spaces."""

    def __init__(self, folder: Path):
        self.folder, self.bin, self.repo = folder, folder / "bin", folder / "repo of mine"
        self.venv = self.repo / ".venv"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        self.command("touch", ': >"$1"')
        self.command("id", "echo 1000")
        (self.repo / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup", self.repo / "scripts" / "setup")
        (self.repo / "pyproject.toml").write_text('parity = ["torch==1.2.3"]\n')
        (self.repo / "constraints.txt").write_text("jax==0.1\njaxlib==0.1 ; python_version > '3'\noptax==0.2\n")
        (self.repo / "constraints-oldest.txt").write_text("jax==0.0.1\n")
        self.has("has-venv")

    def command(self, name: str, script: str):
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def python(self, name: str = "python3", facts: str = GOOD):
        self.command(name, PYTHON.format(facts=facts))

    def has(self, fact: str):
        (self.folder / fact).touch()

    def lacks(self, fact: str):
        (self.folder / fact).unlink()

    def start(self, what: str = "app", shell: str = "sh", **env: str) -> subprocess.Popen:
        return subprocess.Popen(
            [shutil.which(shell) or shell, "scripts/setup", what],
            cwd=self.repo,
            env={"PATH": str(self.bin), "WORLD": str(self.folder), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def setup(self, what: str = "app", shell: str = "sh", **env: str) -> tuple[int, str]:
        process = self.start(what, shell, **env)
        return process.wait(10), process.communicate()[0]

    def log(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def stamps(self) -> list[str]:
        return sorted(path.name for path in self.venv.glob(".stamp-*"))


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


# ---- Which Python ----


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ("2 7 CPython 64 Linux x86_64 glibc 2 36", "python3 is Python 2.7, which is too old"),
        ("3 10 CPython 64 Linux x86_64 glibc 2 36", "python3 is Python 3.10, which is too old"),
        ("3 15 CPython 64 Linux x86_64 glibc 2 36", "python3 is Python 3.15, for which there is no jaxlib wheel yet"),
        ("3 12 PyPy 64 Linux x86_64 glibc 2 36", "python3 is a 64-bit PyPy"),
        ("3 12 CPython 32 Linux i686 glibc 2 36", "python3 is a 32-bit CPython"),
        ("3 12 CPython 64 Linux x86_64 none 0 0", "this Linux uses musl and not glibc"),
        ("3 12 CPython 64 Linux x86_64 glibc 2 17", "this Linux has glibc 2.17, which is too old"),
        ("3 12 CPython 64 Linux riscv64 glibc 2 36", "no jaxlib wheel for Linux on riscv64"),
        ("3 12 CPython 64 Darwin x86_64 none 0 0", "a Python for Intel Macs"),
        ("3 12 CPython 64 Windows AMD64 none 0 0", "no jaxlib wheel for Windows on AMD64"),
        ("", "python3 does not run"),
    ],
)
def test_what_cannot_run_gdkit_is_refused_before_anything_is_made(machine, facts, reason):
    machine.python(facts=facts)
    code, output = machine.setup()
    assert code == 1
    assert reason in output
    assert "CPython 3.11, 3.12, 3.13 or 3.14" in output
    assert not machine.venv.exists()


@pytest.mark.parametrize(
    "facts", [GOOD, "3 11 CPython 64 Linux aarch64 glibc 2 27", "3 14 CPython 64 Darwin arm64 none 0 0"]
)
def test_what_can_run_gdkit_is_used(machine, facts):
    machine.python(facts=facts)
    code, output = machine.setup()
    assert (code, machine.stamps()) == (0, [".stamp-app"]), output


def test_no_python_is_said(machine):
    code, output = machine.setup()
    assert code == 1
    assert "there is no python3 on the PATH" in output


def test_the_newest_suitable_python_is_used_where_python3_is_too_old(machine):
    machine.python(facts="3 9 CPython 64 Linux x86_64 glibc 2 36")
    machine.python("python3.12")
    machine.python("python3.13", facts=GOOD.replace("12", "13"))
    machine.command("python3.14", "exit 127")  # as a version manager's stand-in for a version that is not active
    assert machine.setup()[0] == 0
    assert (machine.venv / ".made-for").read_text().strip().endswith("|3.13")


def test_python_names_the_interpreter_and_another_one_makes_the_environment_anew(machine):
    machine.python()
    machine.python("mine", facts=GOOD.replace("12", "13"))
    assert machine.setup()[0] == 0
    assert machine.setup(PYTHON="mine")[0] == 0
    assert (machine.venv / ".made-for").read_text().strip().endswith("|3.13")
    machine.python("old", facts="3 8 CPython 64 Linux x86_64 glibc 2 36")
    code, output = machine.setup(PYTHON="old")
    assert code == 1
    assert "old is Python 3.8, which is too old (named by PYTHON)" in output


# ---- Where the venv module is missing ----


def test_root_installs_the_venv_module_by_the_package_manager(machine):
    machine.lacks("has-venv")
    machine.python()
    machine.command("id", "echo 0")
    machine.command("apt-get", 'echo "apt-get $*" >>"$WORLD/log"; case $1 in install) : >"$WORLD/has-venv" ;; esac')
    assert machine.setup()[0] == 0
    assert machine.log()[:2] == ["apt-get update", "apt-get install -y python3.12-venv"]
    assert machine.stamps() == [".stamp-app"]


def test_a_package_manager_that_fails_is_said_with_the_command(machine):
    machine.lacks("has-venv")
    machine.python()
    machine.command("id", "echo 0")
    machine.command("apt-get", "exit 100")
    code, output = machine.setup()
    assert code == 1
    assert "First run\n    apt-get install -y python3.12-venv\n" in output
    assert machine.stamps() == []


@pytest.mark.parametrize(
    ("tool", "script"),
    [
        ("virtualenv", 'echo virtualenv >>"$WORLD/log"; mkdir -p "$4/bin"; cp "$WORLD/bin/$3" "$4/bin/python"'),
        (
            "uv",
            'echo "uv $1" >>"$WORLD/log"; [ $1 = pip ] ||\n{ mkdir -p "$7/bin"; cp "$WORLD/bin/$6" "$7/bin/python"; }',
        ),
    ],
)
def test_virtualenv_or_uv_is_used_where_it_is_there(machine, tool, script):
    machine.lacks("has-venv")
    machine.python()
    machine.command(tool, script)
    code, output = machine.setup()
    assert (code, machine.stamps()) == (0, [".stamp-app"]), output
    assert machine.log()[0].startswith(tool)


def test_a_uv_that_fails_leaves_the_work_to_venv_and_pip(machine):
    machine.python()
    machine.command("uv", "exit 2")
    assert machine.setup()[0] == 0
    assert machine.log()[0].startswith("pip")


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt-get", "sudo apt-get install -y python3.12-venv"),
        ("dnf", "sudo dnf install -y python3-virtualenv"),
        (None, "python3 -m pip install --user virtualenv"),
    ],
)
def test_without_a_way_it_stops_with_the_command_to_type(machine, manager, command):
    machine.lacks("has-venv")
    machine.python()
    if manager:
        machine.command(manager, 'echo called >>"$WORLD/log"')
    code, output = machine.setup()
    assert code == 1
    assert f"First run\n    {command}\n" in output
    assert machine.log() == []


# ---- Nothing twice, and nothing by halves ----


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_second_time_does_nothing(machine, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    machine.python()
    assert machine.setup(shell=shell)[0] == 0
    assert machine.setup(shell=shell) == (0, "")
    assert len(machine.log()) == 1
    assert machine.log()[0].endswith("--constraint constraints.txt --editable .[app]")


def test_the_test_set_up_includes_that_of_the_app(machine):
    machine.python()
    assert machine.setup("test")[0] == 0
    assert machine.setup("app") == (0, "")
    assert len(machine.log()) == 1


def test_the_oldest_versions_have_constraints_of_their_own(machine):
    machine.python()
    assert machine.setup("oldest")[0] == 0
    assert machine.log()[0].endswith("--constraint constraints-oldest.txt --editable .[app,core-test]")
    assert machine.setup("oldest") == (0, "")


def test_the_oldest_versions_need_a_python_that_the_oldest_numpy_has_wheels_for(machine):
    machine.python(facts=GOOD.replace("12", "13"))
    code, output = machine.setup("oldest")
    assert code == 1
    assert "python3 is Python 3.13, for which there is no wheel of the oldest NumPy; use Python 3.11 or 3.12" in output
    machine.python("python3.11", facts=GOOD.replace("12", "11"))
    assert machine.setup("oldest")[0] == 0


def test_another_jax_can_be_chosen_and_the_other_versions_stay(machine):
    machine.python()
    assert machine.setup(JAX="0.2")[0] == 0
    constraints = (machine.venv / ".constraints").read_text().splitlines()
    assert constraints == ["jax==0.2", "jaxlib==0.2 ; python_version > '3'", "optax==0.2"]
    assert machine.log()[0].endswith("--constraint .venv/.constraints --editable .[app]")
    assert machine.setup(JAX="0.2") == (0, "")
    assert machine.setup()[0] == 0
    assert machine.log()[1].endswith("--constraint constraints.txt --editable .[app]")


def test_pytorch_is_a_step_of_its_own_with_no_options(machine):
    machine.python()
    assert machine.setup("parity")[0] == 0
    assert machine.log()[1].endswith(" torch==1.2.3")
    assert "--constraint" not in machine.log()[1]
    assert machine.stamps() == [".stamp-app", ".stamp-parity", ".stamp-test"]


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed_again(machine, file):
    machine.python()
    machine.setup()
    with (machine.repo / file).open("a") as stream:
        stream.write("# changed\n")
    assert machine.setup()[0] == 0
    assert len(machine.log()) == 2
    assert machine.setup() == (0, "")


@pytest.mark.parametrize("moment", ["kill-venv", "kill-pip"])
def test_what_was_killed_halfway_is_made_anew(machine, moment):
    machine.python()
    machine.has(moment)
    assert machine.setup()[0] == -9
    assert machine.stamps() == []
    machine.lacks(moment)
    code, output = machine.setup()
    assert code == 0
    assert "was interrupted; creating it again" in output
    assert machine.stamps() == [".stamp-app"]
    assert not (machine.venv / "half").exists()
    assert machine.setup() == (0, "")


def test_a_whole_environment_that_was_killed_in_a_later_change_is_made_anew(machine):
    machine.python()
    machine.setup()
    machine.has("kill-pip")
    assert machine.setup("test")[0] == -9
    machine.lacks("kill-pip")
    assert "was interrupted; creating it again" in machine.setup("app")[1]
    assert machine.stamps() == [".stamp-app"]


def test_without_a_network_it_says_so_and_goes_on_later(machine):
    machine.python()
    machine.has("offline")
    code, output = machine.setup()
    assert code == 1
    assert "cannot be downloaded without a network" in output
    assert machine.stamps() == []
    machine.lacks("offline")
    assert machine.setup()[0] == 0


def test_without_a_network_what_was_whole_stays_whole(machine):
    machine.python()
    machine.setup()
    machine.has("offline")
    assert machine.setup("test")[0] == 1
    assert machine.setup("app") == (0, "")


def test_a_moved_folder_gets_an_environment_of_its_own(machine):
    machine.python()
    machine.setup()
    machine.repo = machine.repo.rename(machine.folder / "moved")
    machine.venv = machine.repo / ".venv"
    code, output = machine.setup()
    assert (code, "creating .venv" in output) == (0, True)


def test_an_environment_of_someone_else_is_left_alone(machine):
    machine.python()
    machine.venv.mkdir()
    (machine.venv / "pyvenv.cfg").write_text("")
    code, output = machine.setup()
    assert code == 1
    assert "was not created by this script" in output
    assert list(machine.venv.iterdir()) == [machine.venv / "pyvenv.cfg"]
    assert machine.setup(VENV=".venv-other")[0] == 0


def test_two_at_once_install_once(machine):
    machine.python()
    machine.has("slow")
    processes = [machine.start(), machine.start()]
    assert [process.wait(10) for process in processes] == [0, 0]
    for process in processes:
        process.communicate()
    assert len(machine.log()) == 1
    assert not os.path.lexists(f"{machine.venv}.lock")


# ---- What is in the files ----


CONSTRAINTS = ("constraints.txt", "constraints-oldest.txt")


def _requirements(*extras: str) -> list[Requirement]:
    """The requirements of gdkit with these extras; an extra that names extras of gdkit itself stands for theirs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [*map(Requirement, project["dependencies"])]
    for extra in extras:
        wanted = map(Requirement, project["optional-dependencies"][extra])
        found += itertools.chain(*(_requirements(*w.extras) if w.name == "gdkit" else [w] for w in wanted))
    return found


def _exact_versions(file: str) -> dict[str, list[str]]:
    """Name -> the versions in a file of constraints; more than one where they depend on the Python version."""
    versions: dict[str, list[str]] = {}
    for pin in map(Requirement, (ROOT / file).read_text().splitlines()):
        versions.setdefault(pin.name, []).append(str(pin.specifier).removeprefix("=="))
    return versions


def _yaml(name: str) -> dict:
    return YAML(typ="safe").load((ROOT / name).read_text())


def _recipe(target: str) -> str:
    """The commands of a target of the Makefile."""
    (commands,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return commands.replace("\t", "")


@pytest.mark.parametrize("file", CONSTRAINTS)
def test_constraints_are_exact_versions_and_nothing_else(file):
    lines = (ROOT / file).read_text().splitlines()
    strange = [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*( ; [\w .'<>=!()*]+)?", line)]
    assert strange == []
    assert lines == sorted(lines)


def test_every_requirement_has_an_exact_version_that_satisfies_it():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    versions = _exact_versions("constraints.txt")
    for wanted in _requirements(*extras):
        found = versions.get(canonicalize_name(wanted.name), [])
        assert found, f"constraints.txt lacks {wanted.name}; make constraints"
        assert all(version in wanted.specifier for version in found), f"{wanted}: {found}"


def test_the_oldest_versions_are_the_lower_bounds():
    versions = _exact_versions("constraints-oldest.txt")
    for wanted in _requirements("app", "core-test"):
        (bound,) = wanted.specifier
        assert bound.operator == ">=", f"{wanted}: no upper bound, which would keep users from newer versions"
        found = versions.get(canonicalize_name(wanted.name), [])
        # Newer Python versions may need a newer one, so the oldest of several counts.
        assert found and min(map(Version, found)) == Version(bound.version), f"{wanted}: {found}; make constraints"


def test_every_test_for_the_oldest_versions_is_there_and_needs_no_other_package():
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    names = re.search(r"^CORE_TESTS := (.*)$", makefile, re.MULTILINE)[1].split()
    assert len(names) == len(set(names)) >= 20
    extra = {"distributed", "loky", "matfree", "flax", "equinox", "haiku", "optuna", "tensorboardX", "mlflow", "torch"}
    for name in names:
        tree = ast.parse((ROOT / "tests" / f"test_{name}.py").read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
        assert not extra & {module.partition(".")[0] for module in modules}, name


def test_pre_commit_runs_what_make_lint_runs():
    wanted = _recipe("lint").replace("$(PY)", ".venv/bin/python").replace("$(VENV)", ".venv").splitlines()
    (repository,) = _yaml(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"].replace(" --force-exclude", "") for hook in repository["hooks"]] == wanted
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}


def test_hosted_ci_makes_the_targets_of_ci_run_and_pins_every_action():
    jobs = _yaml(".github/workflows/ci.yml")["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    targets = re.findall(r"^make .*$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert commands == {"test": targets, "full": ["make test-full"], "oldest": ["make test-oldest"]}
    actions = {step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step}
    assert actions and all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in actions)


def test_hosted_ci_covers_every_python_and_the_oldest_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = {line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)}
    jobs = _yaml(".github/workflows/ci.yml")["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert set(matrix["python"]) == pythons
    versions = [Version(row["jax"]) for job in jobs.values() for row in job["strategy"]["matrix"].get("include", [])]
    assert min(versions) > Version(_exact_versions("constraints-oldest.txt")["jax"][0])
    assert max(versions) > Version(_exact_versions("constraints.txt")["jax"][0])


def test_the_citation_is_of_this_version():
    citation = _yaml("CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [citation[name] for name in ("title", "version", "license", "keywords")] == [
        project["name"], gdkit.__version__, project["license"], project["keywords"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["bug_report", "feature_request"])
def test_issue_forms_have_what_github_asks_for(name):
    form = _yaml(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"] and form["description"] and form["body"]
    assert {field["type"] for field in form["body"]} <= {"input", "textarea", "dropdown", "checkboxes", "markdown"}
    names = [field["id"] for field in form["body"]]
    assert len(set(names)) == len(names) and all(field["attributes"]["label"] for field in form["body"])


def test_no_file_holds_the_address_of_a_registry_or_a_path_of_one_machine():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    # The brackets keep the patterns from finding themselves.
    address = (
        r"pypi[.]org|files[.]pythonhosted|registry[.]npmjs|deb[.]debian[.]org|download[.]pytorch|--(extra-)?index-ur[l]"
    )
    path = r"(?<![\w.$}])/(root|work|home/\w+|Users/\w+|opt/\w+|tmp/[a-z]+)(?=[/\s])"
    found = []
    for name in filter(None, names):
        if (ROOT / name).is_file():
            text = (ROOT / name).read_text(errors="replace")
            found += [f"{name}: {match[0]}" for match in re.finditer(f"{address}|{path}", text)]
    assert found == []


@pytest.mark.full
def test_the_source_distribution_holds_what_tests_and_documents_need(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    wanted = {"README.md", "CONTRIBUTING.md", "CITATION.cff", "Makefile", "constraints-oldest.txt", ".ci/run"}
    wanted |= {"docs/tour.md", "docs/zensical.toml", "configs/digits_mlp.yaml", "tests/conftest.py", "scripts/setup"}
    assert wanted <= names
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= names


def test_tests_reach_no_network():
    with pytest.raises(OSError, match="tests use no network"):
        socket.create_connection(("192.0.2.1", 9), timeout=0.1)


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {"gdkit/py.typed", "gdkit/__init__.py"} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {top for top in tops if not top.endswith(".dist-info")} == {"gdkit"}
    source = {str(path.relative_to(ROOT)) for path in (ROOT / "gdkit").rglob("*") if path.is_file()}
    assert {name for name in source if "__pycache__" not in name} <= names
