"""Headless Chromium for tests of pages and videos: what a reader sees, not what we meant."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import IS_REQUIRED

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
MISSING = "no Chromium on this machine: install it, as with apt-get install chromium"
needs_chromium = pytest.mark.skipif(not CHROMIUM and not IS_REQUIRED, reason=MISSING)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-extensions", "--mute-audio", "--hide-scrollbars"),
    *("--autoplay-policy=no-user-gesture-required", "--allow-file-access-from-files"),
)
TIMEOUT_S = 60
# The image never arrives, so that the page is not complete before the script has ended.
SCRIPT = """
<img id="test-hold" src="{hold}" style="display: none">
<script>
(async () => {{ {script} }})().catch(error => ({{error: String(error)}})).then(result => {{
  const text = document.createElement("pre");
  text.textContent = "RESULT:" + encodeURIComponent(JSON.stringify(result ?? null)) + ":END";
  document.body.append(text);
  document.getElementById("test-hold").src = "data:,";
}});
</script>
"""


def find_chromium() -> str:
    """Return the path of Chromium; skip the test without it, or fail if it is required."""
    if not CHROMIUM:
        (pytest.fail if IS_REQUIRED else pytest.skip)(MISSING)
    return CHROMIUM


def run_chromium(*arguments: str, timeout_s: float = TIMEOUT_S) -> str:
    """Run headless Chromium with a new profile; return what it writes to its standard output."""
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        done = subprocess.run(
            [find_chromium(), *OPTIONS, f"--user-data-dir={profile}", *arguments],
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=os.environ | {"HOME": profile},
        )
    if done.returncode:
        raise RuntimeError(f"{arguments}\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode("utf-8")


def dump_dom(page: Path, *, width: int = 1280, height: int = 800, budget_ms: int = 2000) -> str:
    """Return the document of a page as HTML, after its scripts have run for a (virtual) while."""
    budget = f"--virtual-time-budget={budget_ms}"
    return run_chromium(f"--window-size={width},{height}", budget, "--dump-dom", page.as_uri())


def take_screenshot(
    page: Path, out: Path, *, width: int = 1280, height: int = 800, dark: bool = False
) -> Path:
    """Write a picture of a page as PNG; `height` is that of the window, so of the picture."""
    options = ["--blink-settings=preferredColorScheme=0"] if dark else []
    run_chromium(
        *(*options, f"--window-size={width},{height}", "--virtual-time-budget=2000"),
        *(f"--screenshot={out}", page.as_uri()),
    )
    return out


def print_pdf(page: Path, out: Path) -> Path:
    """Print a page to PDF."""
    run_chromium(f"--print-to-pdf={out}", "--no-pdf-header-footer", page.as_uri())
    return out


def run_script(page: Path, script: str, *, width: int = 1280, height: int = 800) -> object:
    """Run a script on a page in real time, so that videos play; return what it returns.

    Args:
        page: An HTML file. The script runs in a copy beside it, so that relative links hold.
        script: Body of an async function; `return` a value for JSON. An exception gives
            {"error": "..."}.
        width: Width of the window.
        height: Height of the window.
    """
    copy = page.with_name(f"{page.stem}-scripted.html")
    with _hold() as url:
        html = page.read_text(encoding="utf-8")
        added = SCRIPT.format(hold=url, script=script)
        end = html.rfind("</body>") if "</body>" in html else len(html)
        copy.write_text(html[:end] + added + html[end:], encoding="utf-8")
        try:
            dom = run_chromium(f"--window-size={width},{height}", "--dump-dom", copy.as_uri())
        finally:
            copy.unlink()
    result = re.search(r"<pre>RESULT:(.*?):END</pre>", dom)
    assert result, f"the script wrote no result into {dom[-2000:]}"
    return json.loads(urllib.parse.unquote(result[1]))


@contextlib.contextmanager
def _hold() -> Iterator[str]:
    """Yield the URL of a local server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
