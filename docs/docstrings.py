"""Extension of griffe, which reads the code for the API reference of the site."""

import dataclasses
import re
from typing import Any

import griffe

from jdfd_keras import options


class Docstrings(griffe.Extension):
    """Change docstrings before griffe parses them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Read `Example:` as griffe reads `Examples:`: as code instead of a note."""
        if obj.docstring:
            text = obj.docstring.value
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE
            )

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """List the fields of a group of options, with their help and defaults."""
        group = getattr(options, cls.name, None)
        if cls.docstring and dataclasses.is_dataclass(group):
            fields = [
                f"    {field.name}: {field.metadata['help']} (default: `{field.default!r}`)"
                for field in dataclasses.fields(group)
                if "help" in field.metadata
            ]
            cls.docstring.value += "\n\nAttributes:\n" + "\n".join(fields)
