"""Text in CSV files that a spreadsheet would take for a formula, and back. No torch.

A cell that begins with `=`, `+`, `-` or `@` is computed by a spreadsheet, and may open addresses or programs. Such a
text gets an apostrophe before it; numbers stay numbers, and reading takes the apostrophe away again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_COMPUTED = re.compile(r"'*[=+\-@\t\r]")


def guarded(text: str) -> str:
    """A text as it stands in a CSV file.

    Example:
        >>> guarded("=HYPERLINK(A1)"), guarded("-0.5"), guarded("'=x"), guarded("seed=1")
        ("'=HYPERLINK(A1)", '-0.5', "''=x", 'seed=1')
    """
    return f"'{text}" if _COMPUTED.match(text) and not _is_number(text) else text


def original(text: str) -> str:
    """The text that `guarded` was given.

    Example:
        >>> original("'=HYPERLINK(A1)"), original("-0.5"), original("''=x"), original("'quoted'")
        ('=HYPERLINK(A1)', '-0.5', "'=x", "'quoted'")
    """
    return text[1:] if text.startswith("'") and _COMPUTED.match(text) else text


def guarded_table(table: pd.DataFrame) -> pd.DataFrame:
    """A table as it is written to CSV: names of columns and text in cells are `guarded`."""
    return _mapped(table, guarded)


def original_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table that `guarded_table` was given, read from CSV."""
    return _mapped(table, original)


def _mapped(table: pd.DataFrame, function: Any) -> pd.DataFrame:
    made = table.rename(columns=lambda name: function(name) if isinstance(name, str) else name)
    for position, kind in enumerate(table.dtypes):
        if kind.kind not in "OSU" and str(kind) not in ("string", "str", "category"):
            continue
        column = table.iloc[:, position]
        texts = {cell: function(cell) for cell in set(filter(_is_text, column))}  # few: most cells say the same
        if any(text != cell for cell, text in texts.items()):
            made.isetitem(position, column.map(lambda cell, texts=texts: texts[cell] if _is_text(cell) else cell))
    return made


def _is_text(cell: object) -> bool:
    return isinstance(cell, str)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
