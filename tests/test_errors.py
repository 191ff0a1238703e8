import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import geocfl
from geocfl.errors import DOCUMENTATION, SceneError, did_you_mean, unknown_name

PACKAGE = Path(geocfl.__file__).parent
ROOT = PACKAGE.parent


def pages() -> Iterator[tuple[str, str]]:
    """File and page of every error that names one."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "page" and isinstance(node.value, ast.Constant):
                yield file.name, node.value.value


@pytest.mark.parametrize(("file", "page"), sorted(set(pages())))
def test_every_page_that_an_error_names_is_there(file: str, page: str) -> None:
    address, _, anchor = page.partition("#")
    assert address.endswith("/")
    source = ROOT / "docs" / f"{address.rstrip('/')}.md"
    assert source.is_file(), f"{file} names {page}"
    headings = re.findall(r"^#+ (.+)$", source.read_text(), flags=re.MULTILINE)
    slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert not anchor or anchor in slugs


def test_some_errors_name_a_page() -> None:
    assert len(set(pages())) > 20


def test_the_address_is_that_of_the_site() -> None:
    assert f"site_url: {DOCUMENTATION}\n" in (ROOT / "mkdocs.yml").read_text()


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(SceneError("s.tif: odd", page="how-to/formats/")))
    assert (type(error), str(error), error.page) == (SceneError, "s.tif: odd", "how-to/formats/")


LOSSES = ("ce", "focal", "class-focal", "ldam")


def test_a_name_that_is_like_one_is_guessed() -> None:
    said = unknown_name("loss", "clas-focal", LOSSES)
    assert said == "unknown loss 'clas-focal'; did you mean 'class-focal'? choose from: ce, focal, class-focal, ldam"


def test_one_that_is_like_none_is_not() -> None:
    assert unknown_name("loss", "hinge", LOSSES) == "unknown loss 'hinge'; choose from: ce, focal, class-focal, ldam"


@given(st.sampled_from(LOSSES))
def test_case_and_hyphens_do_not_matter(name: str) -> None:
    assert did_you_mean(name.upper().replace("-", "_"), LOSSES) == f"did you mean {name!r}? "


@given(st.text(), st.lists(st.text()))
def test_what_is_guessed_is_there(name: str, known: list[str]) -> None:
    guess = did_you_mean(name, known)
    assert not guess or any(guess == f"did you mean {each!r}? " for each in known)
