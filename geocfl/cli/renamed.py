"""Old spellings of options: they still work for one release, with a warning that names the new spelling."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

REMOVED_IN = "0.3"
RENAMED = {
    "--form": "--cfl-form",
    "--imbalance": "--imbalances",
    "--part": "--subset",
    "--views": "--tta",
    "--workers": "--machines",
}
"""Old to new option; applies to a command that has the new one and no longer the old one."""
PRODUCT_FLAGS = {f"--{name}": name for name in ("probabilities", "entropy", "windows", "sld")}
"""Flags that each added one product; now named by ``--products``."""


def current_spelling(args: Sequence[str], known: Collection[str], warn: Callable[[str], None]) -> list[str]:
    """Rewrites the old spellings in a command's arguments.

    Args:
        args: The arguments after the command's name.
        known: The options of the command.
        warn: Called with one sentence for each old spelling.
    """
    options, after = list(args), []
    if "--" in options:  # what follows are arguments
        end = options.index("--")
        options, after = options[:end], options[end:]
    current, added = [], []
    for arg in options:
        option, equals, value = arg.partition("=")
        if option in known:
            current.append(arg)
        elif RENAMED.get(option) in known:
            warn(f"{option} is now called {RENAMED[option]} and will be removed in {REMOVED_IN}")
            current.append(RENAMED[option] + equals + value)
        elif arg in PRODUCT_FLAGS and "--products" in known:
            warn(f"{arg} is now --products default,{PRODUCT_FLAGS[arg]} and will be removed in {REMOVED_IN}")
            added.append(PRODUCT_FLAGS[arg])
        else:
            current.append(arg)
    return [*_with_products(current, added), *after]


def _with_products(args: list[str], added: list[str]) -> list[str]:
    """Adds products to those that the last ``--products`` names, or to the default ones."""
    if not added:
        return args
    for place in reversed(range(len(args))):
        if args[place].startswith("--products=") or (place and args[place - 1] == "--products"):
            return [*args[:place], ",".join([args[place], *added]), *args[place + 1 :]]
    return [*args, "--products", ",".join(["default", *added])]
