import pytest

from geocfl.core.table import align, read_csv
from geocfl.errors import DataError


def test_numbers_right_and_text_left() -> None:
    assert align([("n", "name"), ("1", "a"), ("10", "bcdef")], text_columns=[1]) == (
        " n  name\n--  -----\n 1  a\n10  bcdef"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"code,name\n1,a;b\n2,\n",
        b'\xef\xbb\xbfcode;name\r\n1;"a;b"\r\n2\r\n',  # as spreadsheets write it in Europe
        b" code\tmore\tname\n 1 \tx\ta;b\n2\ty\t\n",
    ],
)
def test_csv_of_any_separator(tmp_path, content) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert read_csv(path, ("code", "name"), "pass codes") == [{"code": "1", "name": "a;b"}, {"code": "2", "name": ""}]


def test_csv_refusals(tmp_path) -> None:
    path = tmp_path / "t.csv"
    for content, message in (
        (b"", "has no column code; pass codes"),
        (b"code;nom\n1;a\n", "has no column name; pass codes"),
        ("code,name\n1,Fl\u00e4che\n".encode("cp1252"), "is no text in UTF-8; pass codes, saved as CSV UTF-8"),
        (b"code,name\n1," + b"a" * 200_000, "cannot be read as CSV"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"t.csv: {message}"):
            read_csv(path, ("code", "name"), "pass codes")
    for missing in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_csv(missing, ("code",), "pass codes")
