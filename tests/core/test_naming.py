from hypothesis import given
from hypothesis import strategies as st

from geocfl.core.naming import did_you_mean, unknown_name

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
