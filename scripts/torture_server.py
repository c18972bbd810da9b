"""A server for ``scripts/torture_command.py``: runs gdkit's command, or opens results, in forked children.

Each line of stdin is a JSON object of words (`do`) and options. The answer is a line of JSON: the exit code of the
child, negative for a signal, null if it took too long; its stdout and stderr; and how many operations of the file
system it did in `folder`. From operation `at` on the disk is `full`, or there the process is `kill`ed. A child inherits
all imports, so that a run takes about a second.
"""

import contextlib
import errno
import functools
import io
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

_REAL = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace", "link", "mkdir")}
_state = {"folder": None, "at": None, "act": None, "count": 0}


def _is_inside(target) -> bool:
    path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)
    return os.path.abspath(path).startswith(_state["folder"])


def _changes(name, args) -> bool:
    if name == "open":  # for writing
        return bool(args[1] & os.O_CREAT) and _is_inside(args[0])
    return _is_inside(args[0])


def _guard(name):
    def operation(*args, **options):
        if _state["folder"] is not None and _changes(name, args):
            number = _state["count"]
            _state["count"] += 1
            if _state["at"] is not None and number >= _state["at"]:
                if _state["act"] == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([args[0]] if name != "write" else []))
        return _REAL[name](*args, **options)

    return operation


for _name in _REAL:  # before gdkit is imported, which keeps references
    setattr(os, _name, _guard(_name))

import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

import gdkit  # noqa: E402
from gdkit.app import cli  # noqa: E402
from gdkit.app.report import figures  # noqa: E402
from gdkit.app.run.hooks import Hooks  # noqa: E402
from gdkit.app.run.outputs import write_report  # noqa: E402
from gdkit.sweeps.sweep import run_request  # noqa: E402, F401  # the engine


def draw_plainly(result, summary, folder):
    """Draw one quick figure instead of all; its files are published in the same way."""
    figures.make_folder(folder)
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([1, 2])
    return [figures.save_figure(figure, folder / "final_loss", "Loss", "", run=result.lanes.attrs.get("run"))]


def run(words, options):
    """The command; its exit code."""
    offset, real = options.get("clock", 0.0), time.time
    if offset:  # the clock jumps after the first hundred readings
        count = iter(range(10**9))
        time.time = lambda: real() + (offset if next(count) > 100 else 0.0)
    hooks = Hooks(options.get("plan", {}), functools.partial(write_report, draw=draw_plainly))
    return cli.main(words, hooks)


def compare_all(words, options):
    """Open each path and append its outcome to the file `lines`, whose length shows where a child died."""
    with np.load(options["truth"], allow_pickle=False) as file:
        truth = {name: file[name] for name in file.files}
    for path in words:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            code = compare(path, truth)
        with open(options["lines"], "a") as lines:
            lines.write(json.dumps({"code": code, "err": err.getvalue()}) + "\n")
    return 0


def compare(path, truth):
    """0 if the opened result is the true one, 1 if it is another, 2 if it is refused, 3 for other errors."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            lanes = gdkit.open(path).lanes
        except gdkit.GdkitError as error:
            print(error, file=sys.stderr)
            return 2
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 3
    for warning in caught:
        print(warning.message, file=sys.stderr)
    same = set(lanes.variables) == set(truth)
    return 0 if same and all(_as_bytes(lanes[name].values) == _as_bytes(v) for name, v in truth.items()) else 1


def _as_bytes(values):
    return str(values.astype(str).tolist()) if values.dtype.kind in "OU" else values.tobytes()


def _in_child(request):
    """Answer one request; never returns."""
    code = 99
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        _state.update({name: request.get(name) for name in ("at", "act", "folder")}, count=0)
        code = {"run": run, "open": compare_all}[request["do"]](request["words"], request)
    done = _state["count"]
    _state["folder"] = None
    Path(request["reply"]).write_text(json.dumps({"out": out.getvalue(), "err": err.getvalue(), "done": done}))
    os._exit(code)


def answer(request):
    """Fork a child for a request, and wait for it."""
    reply = Path(request["reply"])
    reply.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            _in_child(request)
        finally:
            os._exit(98)
    end = time.monotonic() + request.get("seconds", 300)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"code": None}
        time.sleep(0.002)
    result = json.loads(reply.read_text()) if reply.is_file() else {"out": "", "err": "", "done": 0}
    return result | {"code": os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
