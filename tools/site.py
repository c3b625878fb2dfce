"""Hook of mkdocs: the site has the repository's layout, so that a link means the same there and here.

Pages are those that mkdocs.yml lists, wherever they stand; a file that one of them links to goes along.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]+)")


def listed(entries: list) -> list[str]:
    """The paths of a `nav`, sections opened."""
    found = []
    for entry in entries:
        inside = entry if isinstance(entry, str) else next(iter(entry.values()))
        found += [inside] if isinstance(inside, str) else listed(inside)
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, the listed pages, and what they link to. Raises PluginError for a broken link."""
    pages = [ROOT / path for path in listed(config.nav)]
    linked = set()
    for page in pages:
        text = FENCED.sub("", page.read_text(encoding="utf-8"))
        for target in LINK.findall(text):
            path = (page.parent / target).resolve()
            if "://" not in target and path.suffix != ".md":
                if not path.is_file() or not path.is_relative_to(ROOT):
                    raise PluginError(f"{page.relative_to(ROOT)}: {target} is no file of the repository")
                linked.add(path)
    kept = [file for file in files if file.src_dir != config.docs_dir]
    return Files([*kept, *(generated(path, config) for path in [*pages, *sorted(linked)])])


def generated(path: Path, config: MkDocsConfig) -> File:
    """A file of the repository at its own place in the site."""
    return File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
