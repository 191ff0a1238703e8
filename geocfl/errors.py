"""What a user did wrong, in one sentence that names the file and the remedy."""

DOCUMENTATION = "https://geocfl.readthedocs.io/en/latest/"
"""Where the pages of ``docs/`` are read."""


class GeocflError(Exception):
    """Base of every error that geocfl raises on purpose; the command line prints it and exits with `exit_code`.

    Args:
        message: The sentence.
        page: Address of the page below `DOCUMENTATION` that explains it, such as ``"how-to/formats/"``; empty where
            the sentence says all.
    """

    exit_code = 1

    def __init__(self, message: str = "", *, page: str = "") -> None:
        super().__init__(message)
        self.page = page


class UsageError(GeocflError):
    """An option or argument that cannot be meant."""

    exit_code = 2


class DataError(GeocflError):
    """Patches, split lists, finished maps or zones that are missing, broken or do not fit together."""


class ModelError(GeocflError):
    """A model bundle or weights file that is missing, corrupt or does not fit."""


class SceneError(GeocflError):
    """A scene that cannot be read or lacks what the model needs."""


class OutputError(GeocflError):
    """An output that cannot be written, or that would overwrite something."""
