"""What a user did wrong, in one sentence that names the file and the remedy."""


class GeocflError(Exception):
    """Base of every error that geocfl raises on purpose; the command line prints it and exits with `exit_code`."""

    exit_code = 1


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
