"""Examples: copied with all they need, from a checkout and from a wheel, and never over files of the user."""

import importlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gdkit.app import examples
from gdkit.app.cli import main
from gdkit.app.config.loading import load
from gdkit.app.config.schema import StudyConfig

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """An empty current folder, and no other place from which studies could be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not Path(path, "experiments").is_dir()])
    studies = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "experiments"}
    _forget_studies()
    yield
    _forget_studies()
    sys.modules.update(studies)


def _forget_studies():
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        del sys.modules[name]


def _files() -> set[Path]:
    return {path for path in Path().rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_an_example_is_copied_with_what_its_study_imports_and_checked(capsys):
    assert main(["new", "--example", "parabola"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert {f"wrote {path}" for path in _files()} == set(shown[:-1])
    assert shown[-1] == "run it:  gdkit run configs/parabola.yaml"
    assert {"wrote configs/parabola.yaml", "wrote experiments/parabola.py"} <= set(shown)
    assert main(["check", "configs/parabola.yaml"]) == 0


def test_an_example_without_a_study_is_its_config_alone():
    assert main(["new", "digits_mlp", "--example"]) == 0
    assert _files() == {Path("configs/digits_mlp.yaml")}


def test_examples_share_files_and_overwrite_none(capsys):
    assert main(["new", "--example", "parabola"]) == 0
    shared = Path("experiments/common/claims.py")
    time = shared.stat().st_mtime_ns
    assert main(["new", "--example", "chaos"]) == 0
    assert shared.stat().st_mtime_ns == time
    capsys.readouterr()
    assert main(["new", "--example", "chaos"]) == 0
    assert "All files of this example exist already." in capsys.readouterr().out
    shared.write_text("mine = True\n")
    assert main(["new", "--example", "catapult"]) == 2
    assert "experiments/common/claims.py exists with other content. Move it" in capsys.readouterr().err
    assert not Path("configs/catapult.yaml").exists()
    assert shared.read_text() == "mine = True\n"


def test_a_study_imports_nothing_that_is_not_copied_with_it(monkeypatch):
    assert len(examples.example_names()) >= 20
    for name in examples.example_names():
        examples.copy_example(name, Path(name))
        config = load(f"{name}/configs/{name}.yaml")
        if isinstance(config, StudyConfig):
            with monkeypatch.context() as patch:
                patch.syspath_prepend(name)
                study = importlib.import_module(config.experiment.partition(":")[0])
                assert Path(study.__file__).is_relative_to(Path(name).resolve())
            _forget_studies()


def test_every_study_is_in_the_overview_of_its_package():
    package = ROOT / "experiments"
    listed = set(re.findall(r"\w+", (package / "__init__.py").read_text(encoding="utf-8")))
    assert {path.stem for path in package.glob("*.py")} - {"__init__"} - listed == set()


def test_every_example_is_described_by_a_sentence():
    assert [
        name for name in examples.example_names() if not re.fullmatch(r"\S.{20,}[.?]", examples.describe_example(name))
    ] == []


@pytest.mark.parametrize("words", [["new", "--example"], ["list", "examples"]])
def test_examples_are_listed_with_the_question_that_they_ask(words, capsys):
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "digits_mlp Which learning rates train a small network on handwritten digits with each optimizer?" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["new"], "gdkit new: NAME is missing.\nUsage: gdkit new NAME | --example [NAME]"),
        (["new", "--example", "parabolla"], "--example='parabolla': no such name. Did you mean 'parabola'?"),
        (["run", "configs/chaos.yaml"], "no such file. This config is an example. Copy it: gdkit new --example chaos"),
        (["run", "chaos_alone.yaml"], "installed packages. Copy the example: gdkit new --example chaos"),
    ],
)
def test_what_is_missing_names_the_command_that_copies_an_example(words, said, capsys):
    Path("chaos_alone.yaml").write_text("experiment: experiments.chaos:run\n")
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.full
def test_an_installed_wheel_without_the_repository_copies_and_runs_an_example(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    packaged = tmp_path / "site" / "gdkit" / "app" / "templates" / "examples"
    for folder, suffix in (("configs", "yaml"), ("experiments", "py")):
        pattern = f"**/*.{suffix}"
        copied = {path.relative_to(packaged) for path in (packaged / folder).glob("**/*") if path.is_file()}
        assert copied == {path.relative_to(ROOT) for path in (ROOT / folder).glob(pattern)}
    work = tmp_path / "work"
    work.mkdir()

    def gdkit(*words: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
        command = [sys.executable, "-m", "gdkit", *words]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "wrote experiments/parabola.py" in gdkit("new", "--example", "parabola")
    gdkit("run", "configs/parabola.yaml", "settings.sweep.count=40")
    assert (work / "runs" / "parabola" / "report.html").is_file()
