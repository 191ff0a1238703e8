from geocfl.core.table import align


def test_numbers_right_and_text_left() -> None:
    assert align([("n", "name"), ("1", "a"), ("10", "bcdef")], text_columns=[1]) == (
        " n  name\n--  -----\n 1  a\n10  bcdef"
    )
