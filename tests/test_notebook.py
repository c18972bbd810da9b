"""In a notebook, results are HTML tables, figures are images, and no cell fails."""

import base64
import struct

import pytest

pytestmark = pytest.mark.full  # a kernel is started

CELLS = [
    "import matplotlib.pyplot as plt\nimport gdkit\nfrom gdkit import problems, sgd",
    "result = gdkit.sweep(problems.parabola(), sgd, {'learning_rate': [0.01, 0.2, 0.8, 1.2]}, steps=50)\nresult",
    "gdkit.descend(problems.parabola(), sgd(0.1), 20)",
    "gdkit.chain_rule_trace(lambda x: (x - 3.0) ** 2, 1.0)",
    "gdkit.plots.final_loss(result);",
    "print(result)",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The outputs of each cell."""
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install 'gdkit[test]'")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'gdkit[test]'")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install 'gdkit[test]'")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND", raising=False)  # the kernel sets its own
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(folder / name.lower()))
        resources = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    nbformat.validate(notebook)
    return [cell.outputs for cell in notebook.cells]


def shown(outputs, kind):
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def test_no_cell_fails_or_writes_to_stderr(outputs):
    assert len(outputs) == len(CELLS)
    for cell in outputs:
        assert all(output.output_type != "error" and output.get("name") != "stderr" for output in cell)


@pytest.mark.parametrize(
    "cell, texts",
    [
        (1, ["SweepResult: 4 lanes of 50 steps", "<th>about as good</th>", "1 DIVERGED", "Caveat:"]),
        (2, ["<th>step</th><th>loss</th><th>gradient norm</th>", "<td>20</td>"]),
        (3, ["<table>", "local derivative"]),
    ],
)
def test_results_runs_and_traces_are_html_tables(outputs, cell, texts):
    (html,) = shown(outputs[cell], "text/html")
    assert [text for text in texts if text not in html] == []


def test_a_figure_is_one_image(outputs):
    (image,) = shown(outputs[4], "image/png")
    content = base64.b64decode(image)
    width, height = struct.unpack(">II", content[16:24])
    assert content.startswith(b"\x89PNG") and width > 200 and height > 150


def test_printed_results_are_text(outputs):
    (output,) = outputs[5]
    assert output.name == "stdout" and output.text.startswith("SweepResult: 4 lanes of 50 steps")
