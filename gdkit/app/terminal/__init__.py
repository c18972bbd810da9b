"""What the terminal shows: progress while a sweep runs, tables when it has finished."""

from gdkit.app.terminal.progress import print_plan, show_progress
from gdkit.app.terminal.tables import format_summary, print_claims, print_summary

__all__ = ["format_summary", "print_claims", "print_plan", "print_summary", "show_progress"]
