"""gdkit's command line with small tiles and segments, which configs cannot ask for; for processes that tests start.

    python tests/planned.py '{"plan": {"width": 1, "segment": 20}, "trace": "t"}' run CONFIG ...

Options: `plan`, fields of `gdkit.Plan`; `trace`, a file that gets one line per segment that begins (process, block,
step); `hold`, the number of checkpoints after which every worker waits until there is a file of the trace's name and
``.go``; `bytes`, the most bytes of a file; `outputs`, whether figures and report are written.
"""

import itertools
import json
import os
import resource
import sys
import time

from gdkit.app import cli
from gdkit.app.run.hooks import Hooks
from gdkit.errors import DamagedFileError
from gdkit.store import Store
from gdkit.store.files import FILES
from gdkit.sweeps.execution.settings import DEFAULT_SETTINGS


def traced_store(path, hold=None):
    """A Store that records where each segment begins: where a block starts or resumes, and at each checkpoint."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = itertools.count(1)
    record = lambda block, step: os.write(file, b"%d %d %d\n" % (os.getpid(), block, step))

    class TracedStore(Store):
        def has_carry(self, block):
            if not super().has_carry(block):
                record(block, 0)
                return False
            return True

        def carry(self, block, like=None, *, last=False):
            try:
                stored = super().carry(block, like, last=last)
            except DamagedFileError:
                record(block, 0)
                raise
            if not last:
                record(block, 0 if stored is None else stored.step)
            return stored

        def put_carry(self, block, step, leaves, *, last=False):
            super().put_carry(block, step, leaves, last=last)
            if last:
                return
            record(block, step)
            is_held = hold is not None and next(number) >= hold
            while is_held and not os.path.exists(f"{path}.go"):
                time.sleep(0.002)

    return TracedStore


def store_on(files):
    """A Store with other file operations."""

    class FaultyStore(Store):
        @classmethod
        def create(cls, path, wanted):
            return super().create(path, wanted, files=files)

    return FaultyStore


def main(options, words, files=FILES):
    """Run the command line under these options."""
    store = traced_store(options["trace"], options.get("hold")) if "trace" in options else store_on(files)
    if "bytes" in options:
        sys.dont_write_bytecode = True  # it would be cut short
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["bytes"], resource.RLIM_INFINITY))
    settings = DEFAULT_SETTINGS._replace(store_class=store)
    write_report = None if options.get("outputs") else lambda *_: None
    return cli.main(words, Hooks(options["plan"], write_report=write_report, settings=settings))


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
