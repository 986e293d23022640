"""Pages and cards are written in Jinja, beside the code that fills them."""

from collections.abc import Callable
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@cache
def load_template(package: str, name: str, **filters: Callable[..., str]) -> Template:
    """A template of a package; one of HTML escapes what is filled in, and none leaves a gap unfilled.

    Args:
        package: whose folder `templates` holds it.
        name: the file, which ends with .j2.
        filters: that it uses, by name.
    """
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)
