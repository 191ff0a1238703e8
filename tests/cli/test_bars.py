import io
import json
import logging
import sys
import threading

import pytest

from geocfl.cli.bars import LONGEST_NAME, Bars, bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Puts a terminal in place of standard error; no fixture, as pytest sets the stream once more before the test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def last_line(terminal: Terminal) -> str:
    """What a terminal shows on the line that was written last."""
    line = ""
    for part in terminal.getvalue().replace("\x1b[A", "").rpartition("\n")[2].split("\r"):
        line = part + line[len(part) :]
    return line.strip()


def test_a_bar_moves_and_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with bars() as shown:
        shown("scene.tif", 0, 4, "window")
        shown("scene.tif", 3, 4, "window")
        assert "scene.tif" in terminal.getvalue()
        assert "0/4" in terminal.getvalue()
        shown("scene.tif", 4, 4, "window")
    assert last_line(terminal) == ""


def test_a_continued_work_starts_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with bars() as shown:
        shown("scene.tif", 50, 100, "window")
    assert "50%" in terminal.getvalue()


def test_what_is_done_already_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with bars() as shown:
        shown("scene.tif", 4, 4, "window")
        shown("nothing", 0, 0, "window")
    assert terminal.getvalue() == ""


def test_bars_go_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)

    def fail() -> None:
        with bars() as shown:
            shown("a.tif", 1, 4, "window")
            shown("b.tif", 1, 4, "window")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert last_line(terminal) == ""


def test_the_log_and_results_stand_above_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = terminal_of(monkeypatch)
    log = logging.getLogger("geocfl")
    log.handlers = [logging.StreamHandler(sys.stderr)]
    log.setLevel(logging.INFO)
    with bars() as shown:
        shown("scene.tif", 1, 4, "window")
        log.info("a sentence")
        shown.say("a table")
        assert "\ra sentence\n" in terminal.getvalue(), "the bar was wiped off its line"
        assert "scene.tif" in last_line(terminal)
    assert capsys.readouterr().out == "a table\n"
    log.info("another one")
    assert terminal.getvalue().endswith("another one\n")


def test_no_bar_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with bars() as shown:
        shown("scene.tif", 1, 4, "window")
        shown.say("a table")
    assert capsys.readouterr() == ("a table\n", "")


def test_several_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    with bars() as shown:

        def work(name: str) -> None:
            for done in range(101):
                shown(name, done, 100, "window")

        threads = [threading.Thread(target=work, args=(f"{i}.tif",)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shown._bars == {}
    assert all(f"{i}.tif" in terminal.getvalue() for i in range(8))


def test_long_names_leave_room_for_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of(monkeypatch)
    name = "S2A_MSIL2A_20190416T100031_N0211_R122_T33UUU_20190416T120000.SAFE"
    with bars() as shown:
        shown(name, 1, 4, "window")
    assert name not in terminal.getvalue()
    assert name[: LONGEST_NAME // 2 - 1] in terminal.getvalue()
    assert isinstance(shown, Bars)


def test_lines_of_json_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GEOCFL_PROGRESS", "json")
    with bars() as shown:
        shown("two\nlines.tif", 0, 4, "window")
        shown("https://me:secret@example.com/a.tif", 4, 4, "window")
        shown.say("a table")
    out, err = capsys.readouterr()
    first, last = map(json.loads, err.splitlines())
    assert first == {"progress": "two\\nlines.tif", "done": 0, "total": 4, "unit": "window"}
    assert (last["done"], last["total"]) == (4, 4)
    assert "secret" not in err
    assert out == "a table\n"
