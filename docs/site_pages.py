"""Hooks of mkdocs: pages from the rest of the repository, and links between them.

The pages of `docs/` link to files of the repository by relative paths, so that they also work where
the repository is browsed. On the site, links to its pages are rewritten, others become plain text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PATTERNS = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md"),
    *("benchmarks/results/*.md", "saved_models/jdfd-faces/MODEL_CARD.md", "serving/*.md"),
)
LINK = re.compile(
    r"\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|mailto:|#)[^)#\s]+)(?P<anchor>#[^)]*)?\)"
)
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of `docs/`."""
    for pattern in PATTERNS:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page, but not what looks like one in code."""
    source = Path(page.file.abs_src_path or "").relative_to(ROOT)

    def rewrite(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(source.parent.as_posix(), match["target"]))
        exists = (ROOT / path).exists()
        if (ROOT / path).is_dir():
            path += "/README.md"
        name = "index.md" if path == "README.md" else path.removeprefix("docs/")
        if files.get_file_from_path(name) is None:
            is_outside = not path.startswith("docs/") and exists
            return match["text"] if is_outside else match[0]  # of which mkdocs warns
        target = posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or ".")
        return f"[{match['text']}]({target}{match['anchor'] or ''})"

    parts = FENCED.split(markdown)  # with what is fenced at odd positions
    for index in range(0, len(parts), 2):
        parts[index] = _indent_lists(LINK.sub(rewrite, parts[index]))
    return "".join(parts)


def _indent_lists(text: str) -> str:
    """Indent paragraphs of list items by 4, without which Python-Markdown ends the list."""
    lines, width = [], 0  # of the marker of the current item, such as "1. "; 0 outside of lists
    for line in text.split("\n"):
        if marker := re.match(r"(?:[-*]|\d+\.) +", line):
            width = len(marker[0])
        elif line and not line.startswith(" " * width):
            width = 0
        belongs = width and line and not marker
        lines.append(" " * (4 - width) + line if belongs else line)
    return "\n".join(lines)
