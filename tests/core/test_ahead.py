from __future__ import annotations

import sys
import threading
import time

import pytest

from geocfl.core.ahead import ahead, import_ahead
from geocfl.errors import SceneError


def test_the_next_item_is_made_meanwhile_and_no_more() -> None:
    made, used = [], []

    def items():
        for i in range(5):
            made.append((i, threading.current_thread().name))
            yield i

    with ahead(items()) as each:
        time.sleep(0.05)
        assert len(made) == 1  # before it is asked for
        for item in each:
            time.sleep(0.05)
            assert len(made) <= item + 2
            used.append(item)
    assert used == [0, 1, 2, 3, 4]
    assert all(name.startswith("ahead") for _, name in made)


def test_an_error_of_the_reading_thread_arrives() -> None:
    def items():
        yield 1
        raise SceneError("broken")

    with pytest.raises(SceneError, match="broken"), ahead(items()) as each:
        list(each)


def test_a_module_is_imported_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    import_ahead("no_module_of_this_name")  # said only by the import that needs it
    import_ahead("wave")
    for thread in threading.enumerate():
        if thread.name == "import":
            thread.join()
    assert "wave" in sys.modules
