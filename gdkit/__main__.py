"""``python -m gdkit``, and the command ``gdkit``."""

from gdkit.app.interrupts import exit_on_signals

exit_on_signals()  # before the other imports, which take most of the start

from gdkit.app.cli import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main())
