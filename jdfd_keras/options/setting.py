"""One field of a dataclass of options."""

import dataclasses


def setting(default, help: str, choices: tuple = ()):
    """Declare one field: its default, its line of help and, where closed, its choices."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})
