"""gdkit's command line with small tiles and segments, which configs cannot ask for; for processes that tests start.

    python tests/planned.py '{"plan": {"width": 1, "segment": 20}, "trace": "t"}' run CONFIG ...

Options: `plan`, as of `gdkit.Plan`; `trace`, a file that gets a line for each segment that begins (process, block,
step); `hold`, after how many kept segments every worker waits until there is a file of the trace's name and ``.go``;
`bytes`, how large a file may become. Figures and report are left out.
"""

import itertools
import json
import os
import resource
import sys
import time

from gdkit.app.command_line import main as command_line
from gdkit.app.run.hooks import Hooks
from gdkit.sweeps.rundir import archive

_checkpoint = archive.RunArchive.checkpoint


def trace(path, hold=None):
    """Note where each segment begins: where a block is taken up, and where it was kept."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = itertools.count(1)

    def checkpoint(self, tile, part):
        kept = _checkpoint(self, tile, part)
        note = lambda step: os.write(file, b"%d %d %d\n" % (os.getpid(), part.number, step))

        def load(*where):
            carry = kept.load(*where)
            note(0 if carry is None else int(carry.t))
            return carry

        def save(carry):
            kept.save(carry)
            note(int(carry.t))
            held = hold is not None and next(number) >= hold
            while held and not os.path.exists(f"{path}.go"):
                time.sleep(0.002)

        return kept._replace(load=load, save=save)

    archive.RunArchive.checkpoint = checkpoint


def main(options, words):
    """Run the command line under these options."""
    if "trace" in options:
        trace(options["trace"], options.get("hold"))
    if "bytes" in options:
        sys.dont_write_bytecode = True  # it would be cut short
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["bytes"], resource.RLIM_INFINITY))
    return command_line.main(words, Hooks(options["plan"], lambda *_: None))


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
