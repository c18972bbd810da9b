import tomllib
from pathlib import Path


def test_torch_is_the_version_that_the_project_names(torch):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["parity"] == [f"torch=={torch.__version__.split('+')[0]}"]
