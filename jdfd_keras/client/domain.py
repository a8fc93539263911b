"""What validation files were like, to tell when a file is unlike them."""

from dataclasses import dataclass

from jdfd_keras.io.results import Result


@dataclass(frozen=True)
class Domain(Result):
    """Measures of validation files."""

    num_files: int = 0
