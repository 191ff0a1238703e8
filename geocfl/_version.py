"""The version of geocfl, in one place: the build and every module read it here."""

__version__ = "0.1.0"
