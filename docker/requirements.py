"""Prints what geocfl needs to map, without torch: python requirements.py [EXTRA...] < pyproject.toml.

OpenVINO classifies with a model's `model.onnx`. Torch and what builds on it are for training, evaluation and exports.
"""

import re
import sys
import tomllib

ONLY_TRAINING = {"onnxscript", "timm", "torch", "torchgeo"}


def requirements(pyproject: str, extras: list[str]) -> list[str]:
    """The requirements of pyproject.toml and some of its extras, without those that only training needs."""
    project = tomllib.loads(pyproject)["project"]
    chosen = [*project["dependencies"], *(each for extra in extras for each in project["optional-dependencies"][extra])]
    return [each for each in chosen if re.match(r"[\w.-]+", each).group() not in ONLY_TRAINING]


if __name__ == "__main__":
    print("\n".join(requirements(sys.stdin.read(), sys.argv[1:])))
