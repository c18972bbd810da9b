"""How numbers and tables are printed: as text, and as HTML for notebooks."""

from gdkit.formatting.text import count, format_duration, format_number, format_range, text_table

__all__ = ["count", "format_duration", "format_number", "format_range", "text_table"]
