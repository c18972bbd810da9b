"""How numbers and tables are printed: as text, and as HTML for notebooks."""

from gdkit.formatting.text import count, first_paragraph, format_duration, format_number, format_range, text_table

__all__ = ["count", "first_paragraph", "format_duration", "format_number", "format_range", "text_table"]
