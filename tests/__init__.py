"""Tests, a package of this name so that no other installed one, such as pygeoapi's, is imported in its place."""
