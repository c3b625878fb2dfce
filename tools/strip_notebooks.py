"""Remove from notebooks what does not belong into git: `python tools/strip_notebooks.py [NOTEBOOK...]`.

Outputs, execution counts, states of widgets and what the editor noted about itself go; text, code and ids of
cells stay. Without arguments all of notebooks/ are stripped, and those that changed are named.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

FOLDER = Path(__file__).parent.parent / "notebooks"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def stripped(text: str) -> str:
    """The notebook (JSON) without what executing and editing it have left."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1) + "\n"


def main(paths: list[Path]) -> None:
    """Strip these files."""
    for path in paths:
        before = path.read_text(encoding="utf-8")
        after = stripped(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"stripped {path}")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")))
