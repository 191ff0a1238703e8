"""Facts in a file that several processes add to."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geocfl.core.remembered import Remembered


def test_what_is_put_is_found_by_the_next_process(tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    first = Remembered(file)
    assert first.get("a") is None
    first.put("a", [1, "x"])
    first.put("a", [2, "y"])
    assert first.get("a") == Remembered(file).get("a") == [2, "y"]


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    writers = [Remembered(file) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: writers[n % 8].put(f"key {n}", "v" * (n % 97) * 50), range(400)))
    read = Remembered(file)
    assert all(read.get(f"key {n}") == "v" * (n % 97) * 50 for n in range(400))


def test_a_folder_that_comes_later(tmp_path: Path) -> None:
    early = Remembered(tmp_path / "out" / "facts.jsonl")
    early.put("a", 1)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    early.put("b", 2)
    assert [Remembered(tmp_path / "out" / "facts.jsonl").get(key) for key in "ab"] == [1, 2]


@given(st.data())
def test_no_edit_gives_a_wrong_fact(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut, edited or doubled bytes: what is found is what was put, or nothing."""
    file = tmp_path_factory.mktemp("facts") / "facts.jsonl"
    facts = {f"key {n}": {"hash": str(n) * 8, "size": n} for n in range(4)}
    for key, value in facts.items():
        Remembered(file).put(key, value)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        cut = data.draw(st.integers(0, 20))
        content[at : at + cut] = data.draw(st.binary(max_size=8))
    file.write_bytes(content)
    edited = Remembered(file)
    assert all(edited.get(key) in (value, None) for key, value in facts.items())
    edited.put("new", 5)
    assert Remembered(file).get("new") == 5


def test_a_changed_value_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "facts.jsonl"
    Remembered(file).put("scene.tif", [10, "right"])
    lines = [line.replace("right", "wrong") for line in file.read_text().splitlines()]
    file.write_text("\n".join([*lines, "[" * 100_000, json.dumps({"key": 1}), "null"]))
    assert Remembered(file).get("scene.tif") is None
