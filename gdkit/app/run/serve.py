"""``gdkit serve``: the runs of a folder in a browser; pages of unfinished runs are updated while they run.

The server is that of the standard library. By default it accepts connections from this machine only. It reads only
files within its folder, writes none, and refuses requests for other hosts, so that no page elsewhere can read it
through a browser.
"""

import functools
import threading
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from gdkit.app import directory
from gdkit.app.config.schema import SweepConfig
from gdkit.app.directory import REPORT
from gdkit.app.records import RunRecord, find_runs
from gdkit.app.report.index import read_record, render_index
from gdkit.app.run.outputs import render_partial_report
from gdkit.errors import GdkitError, bad_value
from gdkit.store import RESULTS, Store
from gdkit.store.manifest import NAME

_RELOAD = 5  # seconds after which the page of an unfinished run reloads itself
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SUFFIXES = (".html", ".png", ".svg", ".gif", ".nc", ".json", ".yaml", ".txt", ".log")


def make_server(folder: Path, host: str = "127.0.0.1", port: int = 8000) -> ThreadingHTTPServer:
    """A server of the runs in `folder`; `serve_forever` starts it.

    Raises:
      InputValueError: it cannot listen there.
    """
    handler = functools.partial(_Handler, runs=_Runs(folder.resolve()), is_local=host in _LOOPBACK)
    try:
        return ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        reason = error.strerror or str(error)
        raise bad_value("--port", port, f"cannot listen on {host}: {reason}", "Pass another --port, or 0") from None


class _Runs:
    """The runs of a folder. A run is read again only when more of it has finished."""

    def __init__(self, root: Path):
        self.root = root
        self._records: dict[Path, tuple[Any, RunRecord]] = {}
        self._pages: dict[Path, tuple[Any, bytes]] = {}
        self._lock = threading.Lock()

    def index(self) -> bytes:
        """The list of runs; it reloads itself while some are unfinished."""
        with self._lock:
            runs = [self._describe(folder) for folder in find_runs(self.root)]
        seconds = None if all(run.is_finished for run in runs) else _RELOAD
        return render_index(self.root, runs, live=True, reload_seconds=seconds).encode()

    def page(self, folder: Path) -> bytes | None:
        """The page of an unfinished sweep; None for other runs, whose folder has the report."""
        if (folder / RESULTS).is_file() or not (folder / NAME).is_file() or directory.is_library_run(folder):
            return None
        config = directory.load_config(folder)
        if not isinstance(config, SweepConfig):
            return None
        with self._lock:
            state = _get_progress(folder)
            if self._pages.get(folder, (None,))[0] != state:
                self._pages[folder] = state, render_partial_report(config, folder, _RELOAD).encode()
            return self._pages[folder][1]

    def _describe(self, folder: Path) -> RunRecord:
        state = _get_progress(folder)
        if self._records.get(folder, (None,))[0] != state:
            self._records[folder] = state, read_record(folder)
        return self._records[folder][1]


def _get_progress(folder: Path) -> tuple[Any, ...]:
    """A key that changes when more of a run has finished, or when its files are written."""
    files = [folder / name for name in (NAME, RESULTS, REPORT, "claims.json")]
    times = tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
    try:
        return (*times, int(Store.open(folder).finished().sum()) if times[0] and not times[1] else -1)
    except GdkitError:
        return times


class _Handler(SimpleHTTPRequestHandler):
    """Answers GET and HEAD: the list of runs, pages of unfinished runs, files of runs."""

    def __init__(self, *args: Any, runs: _Runs, is_local: bool):
        self._runs, self._is_local = runs, is_local
        super().__init__(*args, directory=str(runs.root))

    def do_GET(self) -> None:
        """Answer one request."""
        if not self._is_for_this_host():
            self.send_error(HTTPStatus.FORBIDDEN, "Requests for this host are refused")
            return
        try:
            page = self._find_page()
        except (GdkitError, OSError) as error:
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "This run cannot be read", str(error))
            return
        if page is not None:
            self._send_page(page)
        elif self._is_served():
            super().do_GET() if self.command == "GET" else super().do_HEAD()
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "No such file")

    def do_HEAD(self) -> None:
        """Answer one request without its content."""
        self.do_GET()

    def _find_page(self) -> bytes | None:
        """The generated page of this address, if there is one."""
        path = self._resolve_address()
        if path == self._runs.root:
            return self._runs.index()
        is_inside = path is not None and path.parent != self._runs.root
        return self._runs.page(path.parent) if path and is_inside and path.name == REPORT else None

    def _send_page(self, page: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(page))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(page)

    def _resolve_address(self) -> Path | None:
        """The file of this address, with links resolved; None outside the folder."""
        parts = unquote(urlsplit(self.path).path)
        if "\0" in parts or "\\" in parts:
            return None
        path = (self._runs.root / parts.lstrip("/")).resolve()
        return path if path.is_relative_to(self._runs.root) else None

    def _is_served(self) -> bool:
        """Whether this address is a file of a run: no folder, no hidden file, no other kind of file."""
        path = self._resolve_address()
        if path is None or not path.is_file() or path.suffix not in _SUFFIXES:
            return False
        return not any(part.startswith(".") for part in path.relative_to(self._runs.root).parts)

    def translate_path(self, path: str) -> str:
        """The file of an address, which the base class reads."""
        return str(self._resolve_address() or self._runs.root)

    def _is_for_this_host(self) -> bool:
        """Whether the request names this machine as its host, if the server accepts only this machine."""
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        return not self._is_local or name in _LOOPBACK

    def end_headers(self) -> None:
        """Send the headers that every answer has."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""
