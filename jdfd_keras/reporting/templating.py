"""Texts for people, from the Jinja2 templates in `templates/`.

Takes the name of a template and its values; returns the text. Values in `*.html.j2` are escaped.
"""

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined

from jdfd_keras.io.console import plural


def render_template(name: str, **values: object) -> str:
    """Fill a template.

    Args:
        name: File name in `templates/`.
        values: Values by name; one that the template needs and does not get is an error.

    Returns:
        The text, which ends with one newline.
    """
    return _environment().get_template(name).render(values).rstrip("\n") + "\n"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("jdfd_keras.reporting"),
        autoescape=lambda name: bool(name and name.endswith(".html.j2")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plural"] = lambda count, noun: plural(count, noun)
    return environment
