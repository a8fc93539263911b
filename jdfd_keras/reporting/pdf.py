"""HTML pages to PDF, with the Chromium of this machine.

Takes a self-contained page; its style decides the paper, the margins and what is in them.
"""

import os
import shutil
import subprocess
from pathlib import Path

from jdfd_keras.io.files import atomic_path
from jdfd_keras.io.temporary_folder import TemporaryFolder
from jdfd_keras.reporting.templating import GENERATOR

CHROMIUM = "JDFD_KERAS_CHROMIUM"  # environment variable with the path of the program
NAMES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    *("microsoft-edge", "msedge", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
)
TIMEOUT_S = 180
# No connection is opened, and nothing is kept.
OPTIONS = (
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-extensions", "--no-pdf-header-footer"),
)


def find_chromium() -> str:
    """Return the path of Chromium, or of a browser that is built on it.

    Raises:
        FileNotFoundError: If there is none.

    Example:
        >>> os.environ["JDFD_KERAS_CHROMIUM"] = "/no/browser"
        >>> find_chromium()
        Traceback (most recent call last):
        FileNotFoundError: Expected Chromium at /no/browser (JDFD_KERAS_CHROMIUM); got no such ...
        >>> del os.environ["JDFD_KERAS_CHROMIUM"]
    """
    given = os.environ.get(CHROMIUM)
    if given:
        found = shutil.which(given)
        if not found:
            raise FileNotFoundError(
                f"Expected Chromium at {given} ({CHROMIUM}); got no such program. Correct the "
                "path, or write an .html page and print it with any browser."
            )
        return found
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise FileNotFoundError(
        "Expected Chromium, Chrome or Edge to write a PDF; got none on the PATH. Install one, set "
        f"{CHROMIUM} to its path, or write an .html page and print it with any browser."
    )


def print_pdf(page: str | Path, path: str | Path) -> None:
    """Print a page to a PDF, which appears whole or not at all.

    Args:
        page: The .html file.
        path: The .pdf file, replaced if it exists.

    Raises:
        OSError: If there is no Chromium, or it fails or takes more than TIMEOUT_S.

    Example:
        >>> print_pdf("page.html", "page.pdf")  # doctest: +SKIP
    """
    program = find_chromium()
    # Chromium's sandbox refuses to start for root; the page runs no script in any case.
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with TemporaryFolder() as profile, atomic_path(path) as pdf:
        command = [
            *(program, *OPTIONS, *(["--no-sandbox"] if is_root else [])),
            f"--user-agent={GENERATOR}",  # the creator of the PDF
            *(f"--user-data-dir={profile}", f"--print-to-pdf={pdf.absolute()}"),
            Path(page).absolute().as_uri(),
        ]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_S,
                env=os.environ | {"HOME": profile},
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(
                f"Expected {program} to print {path} within {TIMEOUT_S} s; got no PDF. Write an "
                ".html page and print it with any browser."
            ) from error
        if done.returncode or not pdf.is_file() or not pdf.stat().st_size:
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise OSError(
                f"Expected {program} to print {path}; got exit code {done.returncode}"
                f"{''.join(f' ({line})' for line in reason)}. Write an .html page and print it "
                "with any browser."
            )
