"""A headless Chromium to test pages in, controlled over a pipe by its DevTools protocol: no driver, port or package.

The protocol: https://chromedevtools.github.io/devtools-protocol
"""

import base64
import contextlib
import importlib.resources
import importlib.util
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
_KEYS = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
_TIMEOUT = 60  # seconds for one response, on a busy machine


def find_chromium() -> str | None:
    """The path of a Chromium on this machine, or None."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


HAS_AXE = importlib.util.find_spec("axe_core_python") is not None


class Page:
    """One tab. `problems` are errors that it logged or threw, `requests` the addresses that it requested."""

    def __init__(self, commands: int, responses: int, downloads: Path):
        self._commands, self._responses, self._buffer = commands, responses, b""
        self._numbers = itertools.count(1)
        self.downloads = downloads
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The response to one command."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            response = self._read()
            if response.get("id") == number:
                if "error" in response:
                    raise RuntimeError(f"{method}: {response['error']['message']}")
                return response["result"]
            self._handle_event(response.get("method", ""), response.get("params", {}))

    def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False, script: bool = True):
        """Goes to an address and waits until it has loaded."""
        self.problems.clear(), self.requests.clear()
        self.set_display(width=width, height=height, dark=dark)
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self._loaded = False
        self.call("Page.navigate", url=address)
        while not self._loaded:
            event = self._read()
            self._handle_event(event.get("method", ""), event.get("params", {}))

    def set_display(self, *, width: int, height: int = 900, dark: bool = False, media: str = "") -> None:
        """Sets the size of the window, the colour scheme and, with ``print``, the medium."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=scheme)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        response = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in response:
            raise RuntimeError(f"{expression}: {response['exceptionDetails'].get('exception', response)}")
        return response["result"].get("value")

    def move_mouse(self, x: float, y: float, *, click: bool = False) -> None:
        """Moves the mouse to a point of the window, and clicks there if `click` is set."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float], *, shift: bool = False) -> None:
        """Presses the mouse at `start` and releases it at `end`."""
        held = {"modifiers": 8 * shift, "button": "left", "clickCount": 1}
        self.move_mouse(*start)
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], **held)
        for share in (0.3, 0.7, 1.0):
            x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, buttons=1, **held)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], **held)

    def double_click(self, x: float, y: float) -> None:
        """Clicks twice at a point."""
        for count, kind in ((1, "mousePressed"), (1, "mouseReleased"), (2, "mousePressed"), (2, "mouseReleased")):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count)

    def turn_wheel(self, x: float, y: float, delta: float, *, ctrl: bool = False) -> None:
        """Turns the wheel at a point; negative numbers scroll up."""
        self.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=delta, modifiers=2 * ctrl)

    def touch(self, *places: Sequence[tuple[float, float]]) -> None:
        """Puts fingers down at the first places, moves them through the others, and lifts them."""
        points = lambda fingers: [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(fingers)]
        for kind, fingers in zip(["touchStart"] + ["touchMove"] * (len(places) - 1), places, strict=True):
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points(fingers))
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press_key(self, key: str, *, shift: bool = False) -> None:
        """Presses and releases a named key, or that of a sign."""
        code = _KEYS.get(key) or ord(key)
        for kind in ("rawKeyDown", "keyUp"):
            held = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 * shift}
            self.call("Input.dispatchKeyEvent", type=kind, **held)

    def find_violations(self) -> list[Any]:
        """What axe-core finds wrong with the accessibility of the page: rules, with the elements that break them."""
        axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
        self.evaluate(f"{axe};0")
        # colours in the middle of a transition would be judged by chance
        self.evaluate("for (const one of document.getAnimations()) try { one.finish() } catch {}")
        nodes = "v.nodes.map((n) => n.html.slice(0, 200))"
        return self.evaluate(f"axe.run().then((r) => r.violations.map((v) => [v.id, {nodes}]))")

    def processor_seconds(self) -> float:
        """Processor time of the page's own thread since it was opened."""
        measured = self.call("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in measured if m["name"] == "TaskDuration")

    def save_screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Saves a PNG of the whole page, or of the part in view."""
        clip = self._whole_page() if whole else {}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def save_pdf(self, path: Path) -> None:
        """Saves the page as it prints on A4."""
        sheet = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": True}
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", **sheet)["data"]))

    def _whole_page(self) -> dict[str, Any]:
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._responses], [], [], _TIMEOUT)[0]:
                raise TimeoutError(f"Chromium did not respond for {_TIMEOUT} s")
            part = os.read(self._responses, 1 << 20)
            if not part:
                raise RuntimeError("Chromium ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _handle_event(self, event: str, parameters: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests += [address for address in [parameters["request"]["url"]] if not address.startswith("data:")]
        elif event == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.problems.append(parameters["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.problems.append(str([argument.get("value") for argument in parameters["args"]]))


@contextlib.contextmanager
def open_chromium(path: str) -> Generator[Page]:
    """A tab of a new Chromium, which ends with the block."""
    (child_commands, commands), (responses, child_responses) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        downloads = Path(folder, "downloads")
        downloads.mkdir()
        # Chromium reads commands from descriptor 3 and writes responses to descriptor 4
        script = f'exec "$0" "$@" 3<&{child_commands} 4>&{child_responses} >/dev/null 2>&1'
        words = ["bash", "-c", script, path, *_FLAGS, f"--user-data-dir={folder}/profile"]
        process = subprocess.Popen(words, pass_fds=(child_commands, child_responses))
        os.close(child_commands), os.close(child_responses)
        try:
            page = Page(commands, responses, downloads)
            page.call("Performance.enable", timeDomain="threadTicks")  # not the time that other processes take
            yield page
            page._session = None
            page.call("Browser.close")
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            os.close(commands), os.close(responses)
