"""The code of the README and of the tutorials runs, and prints the output that they show."""

import importlib.util
import json
import re
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import pytest
from shared import quick

from gdkit.app.cli import main

ROOT = Path(__file__).parent.parent
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")
PADDED = re.compile(rf" *{NUMBER.pattern}")  # the padding of a column depends on the length of its numbers
LESSON = "docs/derivatives.md"
FILE = re.compile(r"```(?:python|yaml)\n# (?P<name>\w+\.(?:py|yaml))\n(?P<body>.*?)```", re.DOTALL)
COMMAND = re.compile(r"^gdkit (?P<verb>check|run) (?P<config>\w+\.yaml)", re.MULTILINE)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Tolerances of printed numbers: other machines round differently, more so near the edge of stability.
TUTORIALS = {f"docs/{name}.md": {"rel": 0.2, "abs": 1e-6} for name in load(ROOT / "docs" / "readme.py").TUTORIALS}
DOCUMENTS = {
    "README.md": {"rel": 0.3},  # the score corrected for choosing the best of five moves by 20 % with rounding
    **TUTORIALS,
    LESSON: {"rel": 1e-3, "abs": 1e-4},
    "docs/tuning.md": {"rel": 0.05},
}

# Pages that `make test` runs; `make test-full` runs them all.
EVERY_TIME = ("README.md", LESSON, "docs/quickstart.md")
WITH_COMMANDS = [name for name in TUTORIALS if COMMAND.search((ROOT / name).read_text("utf-8"))]

# Pages that the tests run with smaller sizes than those of the outputs that they show.
SMALL = [name for name in TUTORIALS if "  # small: " in (ROOT / name).read_text("utf-8")]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Run a document once: its folder, and for each block the output that it shows and the output of its code."""
    results = {}

    def run(name):
        if name not in results:
            folder = tmp_path_factory.mktemp(Path(name).stem)
            text = (ROOT / name).read_text(encoding="utf-8")
            with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):  # a reader has the default
                patch.chdir(folder)
                readme = load(ROOT / "docs" / "readme.py")
                results[name] = folder, list(readme.outputs(readme.shrink(text)))
            plt.close("all")
        return results[name]

    return run


@pytest.mark.parametrize("name", quick(DOCUMENTS, *EVERY_TIME))
def test_code_of_a_document_prints_the_output_that_it_shows(name, printed):
    _, blocks = printed(name)
    assert len(blocks) >= 2
    for shown, output in blocks:
        assert shown.strip() and output.strip(), "an output is missing: make readme"
        if name in SMALL:
            continue
        assert PADDED.sub("#", shown) == PADDED.sub("#", output), "run: make readme"
        numbers = ([float(n) for n in NUMBER.findall(text)] for text in (shown, output))
        assert next(numbers) == pytest.approx(next(numbers), **DOCUMENTS[name]), "run: make readme"


@pytest.mark.parametrize("name", quick(DOCUMENTS, *EVERY_TIME))
def test_figures_that_a_document_shows_exist_and_are_drawn_by_its_code_or_its_runs(name, printed):
    folder, _ = printed(name)
    text = (ROOT / name).read_text(encoding="utf-8")
    for path in re.findall(r"!\[.*?\]\((.*?)\)", text):
        shown = (ROOT / name).parent / path
        assert shown.stat().st_size > 5_000
        if name != "README.md":
            assert (folder / shown.name).stat().st_size > 5_000


@pytest.mark.full
@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_configs_of_a_document_run_with_its_files(name, printed, monkeypatch, capsys):
    monkeypatch.chdir(printed(name)[0])
    text = (ROOT / name).read_text(encoding="utf-8")
    for file in FILE.finditer(text):
        Path(file["name"]).write_text(file["body"], encoding="utf-8")
    verbs = {
        match["config"]: match["verb"] for match in reversed(list(COMMAND.finditer(text)))
    }  # the first of each config
    for config, verb in verbs.items():
        assert main([verb, config]) == 0, capsys.readouterr().err


def test_the_library_example_of_the_readme_saves_its_figure(printed):
    assert (printed("README.md")[0] / "final_loss.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "claim",
    [
        r"1 \| +7 \| +1\n +0\.01 \| +6\.01 \| +0\.01\n +0\.001 \| +6\.001 \| +0\.001\njax\.grad \| +6",
        "f     = 0.85\n∂f/∂c = 1.6\n∂f/∂d = 2\n",
        "3.0 × 2.0 = 6.0",
        r"y\(1\) = 9, y\(1\.001\) = 9\.012004, slope 12\.004, derivative 12\n",
        "backwards: 1 → 6 → 6 → 12\n",
        r"\['weights'\]: WRONG",
        r"\['bias'\]: right",
    ],
)
def test_the_lesson_prints_its_numbers(printed, claim):
    assert any(re.search(claim, output) for _, output in printed(LESSON)[1])


def test_the_page_of_reproductions_is_generated_from_results_whose_claims_hold():
    writer = load(ROOT / "docs" / "reproduce.py")
    studies = json.loads((ROOT / "docs" / "reproductions.json").read_text(encoding="utf-8"))
    assert set(studies) == set(writer.studies()), "run: make reproduce"
    assert (ROOT / "docs" / "reproductions.md").read_text(encoding="utf-8") == writer.page(studies)
    for name, study in studies.items():
        assert study["claims"] and all(claim["holds"] for claim in study["claims"]), name
        assert all((ROOT / "docs" / "figures" / figure).stat().st_size > 5_000 for figure in study["figures"])
