"""Lists of runs, on disk and from the server, and answers for other programs."""

import http.client
import json
import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import synthetic

import gdkit
from gdkit import problems, sgd
from gdkit.app import report
from gdkit.app.cli import main
from gdkit.app.config.loading import dump, loads
from gdkit.app.directory import CONFIG
from gdkit.app.run.serve import make_server
from gdkit.app.summary import summarize
from gdkit.errors import bad_value
from gdkit.store import Store
from gdkit.sweeps.plan.shapes import Plan
from gdkit.sweeps.request import check_request
from gdkit.sweeps.rundir.manifest import RunDirectory
from gdkit.sweeps.sweep import run_request

CONFIG_TEXT = """\
name: NAME
problem: {name: parabola}
optimizer: {name: sgd}
sweep: {axes: {learning_rate: {log: {from: 1e-2, to: 10, count: 8}}}, steps: 20}
"""
REQUEST = {"steps": 20, "plan": Plan(width=2, tile=1)}


def run_part(folder, shard):
    """Runs every second tile of the config's sweep."""
    request = check_request(problems.parabola(), sgd, {"learning_rate": np.geomspace(1e-2, 10, 8)}, **REQUEST)
    run_request(request, directory=RunDirectory(folder, dump(loads(CONFIG_TEXT)), shard))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of a finished run, an unfinished one, one that has not begun, and a study."""
    root = tmp_path_factory.mktemp("all") / "runs"
    for name in ("done", "group/half", "study"):
        (root / name).mkdir(parents=True)
        (root / name / CONFIG).write_text(CONFIG_TEXT)
    made = synthetic.result(("sgd",), rates=6)
    made.save(root / "done" / "results.nc")
    report.write_report(loads(CONFIG_TEXT), made, summarize(made), [], root / "done")
    run_part(root / "group" / "half", (0, 2))
    claims = [{"text": "a", "holds": True}, {"text": "b", "holds": False}]
    (root / "study" / "claims.json").write_text(json.dumps(claims))
    (root.parent / "secret.txt").write_text("secret")
    (root / "done" / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "done" / ".hidden.txt").write_text("hidden")
    return root


@pytest.fixture(scope="module")
def server(root):
    with make_server(root, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


def get(server, path, **headers):
    """Status and text of the answer to a request whose path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.read().decode()


def rows(page):
    """Cells of the list of runs by name."""
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr><th scope=.row.*?</tr>", page)]
    return {re.sub("<[^>]*>", "", first): (first, *rest) for first, *rest in cells}


def test_the_index_lists_every_run_with_its_answer(root, capsys):
    assert main(["report", str(root)]) == 0
    assert capsys.readouterr().out == f"{root / 'index.html'}\n"
    listed = rows((root / "index.html").read_text())
    assert listed.keys() == {"done", "group/half", "study"}
    assert 'href="done/report.html"' in listed["done"][0] and "href" not in listed["group/half"][0]
    assert listed["done"][1] == "18 runs finished" and listed["done"][2].startswith("Use sgd with learning rate")
    assert listed["group/half"][1] == "4 of 8 runs finished" and "Partial: 4 of 8 runs" in listed["group/half"][2]
    assert listed["study"][2] == "1 of 2 claims hold."


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a", "{", "cannot be read"),
        ("b", "name: 3\n", "cannot be read"),
        ("c", "experiment: no.such:run\n", "finished"),
    ],
)
def test_a_run_that_cannot_be_read_is_listed_with_the_reason(name, content, words, tmp_path, capsys):
    (tmp_path / name).mkdir()
    (tmp_path / name / CONFIG).write_text(content)
    (tmp_path / name / "report.html").write_text("")
    assert main(["report", str(tmp_path)]) == 0
    assert rows((tmp_path / "index.html").read_text())[name][1] == words


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert main(["serve", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_server_lists_runs_and_follows_unfinished_ones(server, root):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=60) as answer:
        page = answer.read().decode()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert 'href="group/half/report.html"' in page and 'data-reload="5"' in page
    status, half = get(server, "/group/half/report.html")
    assert status == 200 and "4 of 8 runs have not finished" in half and 'data-reload="5"' in half
    assert not (root / "group/half/report.html").exists()  # the server writes nothing
    run_part(root / "group" / "half", (1, 2))
    assert Store.open(root / "group/half").status().lanes_done == 8
    assert "have not finished" not in get(server, "/group/half/report.html")[1]
    assert rows(get(server, "/")[1])["group/half"][1] == "8 runs finished"
    assert get(server, "/done/report.html") == (200, (root / "done/report.html").read_text())


OUTSIDE = (
    "/../secret.txt /done/../../secret.txt /%2e%2e/secret.txt /done/link.txt /..%5csecret.txt /done/ "
    "/done/.hidden.txt //etc/passwd /done/%00report.html /group/half/tiles /nowhere/report.html"
)


@pytest.mark.parametrize("path", OUTSIDE.split())
def test_nothing_outside_the_runs_is_served(server, path):
    status, text = get(server, path)
    assert status == 404 and "secret" not in text.replace("secret.txt", "")


@pytest.mark.parametrize(("host", "status"), [("localhost:80", 200), ("127.0.0.1", 200), ("evil.example", 403)])
def test_requests_for_other_hosts_are_refused(server, host, status):
    assert get(server, "/", Host=host)[0] == status


def test_the_server_listens_on_this_machine_alone_and_names_a_port_that_is_taken(server, root, capsys):
    assert server.server_address[0] == "127.0.0.1"
    assert main(["serve", str(root), "--port", str(server.server_port)]) == 2
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err


# Answers for logs and programs


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG_TEXT.replace("NAME", "small"))
    return tmp_path


@pytest.mark.full
def test_json_holds_the_answer_and_nothing_else_is_printed(small, capsys):
    assert main(["run", "small.yaml", "--json"]) == 0
    shown = capsys.readouterr()
    record, found = json.loads(shown.out), gdkit.open("runs/small").recommend()
    assert shown.err == ""
    best = record["best"]
    assert (record["runs"], record["finished"], record["measure"]) == (8, 8, "final_loss")
    assert best["values"] == {"learning_rate": found.best} and best["mean"] == found.mean
    assert best["edge"]["none_up_to"] < 1 < best["edge"]["some_at"]  # 2/λ
    assert len(record["caveats"]) == len(found.caveats)
    assert record["paths"]["report"] == "runs/small/report.html"
    assert main(["status", "runs/small", "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts["runs"], counts["finished"], counts["steps"]) == (8, 8, 20)


@pytest.mark.parametrize("words", [["--quiet"], ["--json"], []])
def test_a_report_of_an_unfinished_run_is_shown_as_asked(words, tmp_path, capsys):
    run = tmp_path / "half"
    run.mkdir()
    (run / CONFIG).write_text(CONFIG_TEXT)
    run_part(run, (0, 2))
    assert main(["report", str(run), *words]) == 0
    shown = capsys.readouterr().out
    assert "Partial: 4 of 8 runs finished. Use learning rate" in " ".join(shown.split()).replace("sgd with ", "")
    if words == ["--quiet"]:
        assert shown.count("\n") == 1 and shown.endswith(f"Report: {run / 'report.html'}\n")
    elif words:
        record = json.loads(shown)
        assert (record["runs"], record["finished"]) == (8, 4) and record["paths"] == {"report": f"{run}/report.html"}
    else:
        assert "Caveat: " in shown


def test_quiet_and_json_exclude_each_other(small, capsys):
    assert main(["run", "small.yaml", "--json", "--quiet"]) == 2
    assert "--json prints a record instead" in capsys.readouterr().err


class Model:
    """An object whose default representation has an address."""


@pytest.mark.parametrize("value", [lambda x: x, Model(), Model().__init__, sgd, [sgd], {"a": Model()}])
def test_functions_and_objects_are_named_without_addresses(value):
    message = str(bad_value("argument", value, "bad", "Pass another"))
    assert " at 0x" not in message and any(name in message for name in ("lambda", "Model", "sgd"))
