import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from geocfl.cli import app
from geocfl.cli.entry import _LevelFormatter, as_options, print_error
from geocfl.errors import DOCUMENTATION, SceneError
from tests.cli.program import COMMAND, run

COMMANDS: dict[Any, Any] = get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.integration
def test_version(tmp_path: Path) -> None:
    import geocfl

    assert run("-V", cwd=tmp_path).stdout == run("--version", cwd=tmp_path).stdout
    assert run("--version", cwd=tmp_path).stdout.strip() == f"geocfl {geocfl.__version__}"


def test_log_messages_do_not_change_the_terminal() -> None:
    record = logging.LogRecord("geocfl", logging.WARNING, "", 0, "mapping %s", ("\x1b[2J\nred.tif",), None)
    assert _LevelFormatter(None).format(record) == r"warning: mapping \x1b[2J\nred.tif"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["map", "none.tif"], 1, "none.tif: no such file"),
        (["map", "none.tif", "--model", "nowhere"], 1, "nowhere: no such model"),
        (["info", "none.tif"], 1, "none.tif: no such file"),
        (["stats", "none.tif", "--zones", "none.gpkg"], 1, "none.tif"),
        (["mosaic", "none_lulc.tif", "--out", "all_lulc.tif"], 1, "none_lulc.tif"),
        (["clouds", "none.tif", "--out", "clouds.tif"], 1, "none.tif: no such file"),
        (["map", "http://127.0.0.1:9/s.tif"], 1, "http://127.0.0.1:9/s.tif: the server cannot be reached"),
        (["train", "--data", "none.zip", "--out", "run"], 1, "none.zip"),
        (["train", "--data", "none.zip", "--out", "run", "--split", "thirds"], 2, "spatial, manifest, random:FRACTION"),
        (["train", "--data", "none.zip", "--out", "run", "--loss", "hinge"], 2, "class-focal"),
        (["train", "--data", "none.zip", "--out", "run", "--backbone", "vgg"], 2, "resnet18"),
        (["train", "--data", "none.zip", "--out", "run", "--imbalance", "tail"], 2, "long-tail:R"),
        (["train", "--out", "run"], 2, "--data"),
        (["train", "--config", "none.json", "--out", "run"], 2, "none.json"),
        (["evaluate", "nowhere", "--data", "none.zip", "--out", "out"], 1, "nowhere: no such model"),
        (["evaluate", "eurosat-rgb-lite0", "--data", "none.zip", "--out", "out"], 1, "none.zip"),
        (["compare", "--data", "none.zip", "--out", "out", "--losses", "ce,hinge"], 2, "class-focal"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, args: list[str], code: int, words: str) -> None:
    done = run(*args, cwd=tmp_path, code=code)
    said = done.stderr.strip().splitlines()
    start = next(i for i, line in enumerate(said) if line.startswith("geocfl: "))  # after what the command is doing
    sentence, *rest = said[start:]
    assert words in sentence
    assert all(line.startswith(f"  see {DOCUMENTATION}") for line in rest)
    assert len(rest) <= 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_usage_errors_exit_with_two(tmp_path: Path) -> None:
    assert "stride" in run("map", "s.tif", "--stride", 65, cwd=tmp_path, code=2).stderr
    run("map", cwd=tmp_path, code=2)
    run("nonsense", cwd=tmp_path, code=2)


@pytest.mark.integration
def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "--debug", "info", "none.tif"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("before", [[], ["info", "a.tif"], ["map", "--bands"], ["map", "a.tif", "--stride"]])
def test_misuse_is_said_without_passwords(before: list[str]) -> None:
    result = CliRunner().invoke(app, [*before, "http://me:SECRET@127.0.0.1:9/B04.tif?sig=SECRET"])
    assert result.exit_code == 2
    assert "SECRET" not in result.output


def test_tracebacks_hold_no_password(tmp_path: Path) -> None:
    url = "http://me:SECRET@127.0.0.1:9/B04.tif?sig=SECRET"
    run = subprocess.run(
        [COMMAND, "--debug", "info", url], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"GDAL_HTTP_MAX_RETRY": "0"},
    )  # fmt: skip
    assert "Traceback" in run.stderr
    assert "http://127.0.0.1:9/B04.tif" in run.stderr
    assert "SECRET" not in run.stdout + run.stderr


def test_an_error_names_the_page_that_explains_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(SceneError("s.tif: odd; pass another", page="how-to/formats/"))
    assert capsys.readouterr().err == f"geocfl: s.tif: odd; pass another\n  see {DOCUMENTATION}how-to/formats/\n"
    print_error(SceneError("s.tif: no such file"))
    assert capsys.readouterr().err == "geocfl: s.tif: no such file\n"


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["mpa"], "No such command 'mpa'. Did you mean 'map'"),
        (["map", "s.tif", "--strid", "32"], "--stride"),
        (["map", "s.tif", "--products", "lulc,previw"], "unknown product 'previw'; did you mean 'preview'?"),
        (["map", "s.tif", "--products", "LULC"], "unknown product 'LULC'; did you mean 'lulc'?"),
        (["map", "s.tif", "--vector", "gpgk"], "unknown vector format 'gpgk'; did you mean 'gpkg'?"),
        (["map", "s.tif", "--model", "eurosat-rgb-lite"], "no such model; did you mean 'eurosat-rgb-lite0'?"),
        (["train", "--data", "d", "--out", "o", "--loss", "class_focal"], "'class_focal'; did you mean 'class-focal'?"),
        (["train", "--data", "d", "--out", "o", "--split", "spatail"], "'spatail'; did you mean 'spatial'?"),
        (["train", "--data", "d", "--out", "o", "--backbone", "ResNet-18"], "'ResNet-18'; did you mean 'resnet18'?"),
        (["train", "--data", "d", "--out", "o", "--recipe", "papr"], "'papr'; did you mean 'paper'?"),
        (["train", "--data", "d", "--out", "o", "--imbalance", "longtail:9"], "did you mean 'long-tail:R'?"),
        (["train", "--data", "d", "--out", "o", "--class-order", "reverse"], "did you mean 'reversed'?"),
        (["evaluate", "eurosat-rgb-lite0", "--data", "d", "--out", "o", "--subset", "tets"], "did you mean 'test'?"),
        (["export", "eurosat-rgb-lite0", "--format", "onxn"], "unknown --format 'onxn'; did you mean 'onnx'?"),
    ],
)
def test_a_misspelt_name_is_guessed(
    args: list[str], meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, args, env={"COLUMNS": "200"})
    assert done.exit_code in {1, 2}
    assert meant in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_a_scene_instead_of_a_command_gets_a_hint(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").touch()
    done = run("scene.tif", cwd=tmp_path, code=2)
    assert done.stderr.startswith("geocfl: scene.tif is not a command; to map it: geocfl map scene.tif\n")


def test_an_interrupt_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("geocfl.info", stop, raising=False)
    done = CliRunner().invoke(app, ["info", "s.tif"])
    assert (done.exit_code, done.stderr) == (130, "geocfl: stopped\n")


@pytest.mark.parametrize(
    ("command", "message", "shown"),
    [
        (None, "`min_confidence` is 3", "--min-confidence is 3"),
        (None, "use `overwrite=True` to replace it", "use --overwrite to replace it"),
        (None, "pass `min_area=2`, or `warp=False`", "pass --min-area 2, or --no-warp"),
        (None, "see `README.md`", "see `README.md`"),
        ("map", "pass `warp=False` or `overwrite=True`", "pass --no-warp or --overwrite"),
        ("map", "pass another `scene`", "pass another SCENE"),
        ("map", "`list_file` is empty", "--list is empty"),
        ("map", 'pass `bands={"B04": 3, "B03": 2}`', "pass --bands B04=3,B03=2"),
        ("map", 'pass `products=("lulc", "vector")`', "pass --products lulc,vector"),
        ("map", 'pass `memory="2GB"` or `out=FOLDER`', "pass --memory 2GB or --out FOLDER"),
        ("map", "pass another `model`", "pass another --model"),
        ("evaluate", "pass another `model`", "pass another MODEL"),
        ("compare", "`imbalances` is empty", "--imbalances is empty"),
        ("train", "pass `batch_size=32`", "pass --batch-size 32"),
        ("demo", "pass `stride=16`", "pass stride=16"),  # demo has no such option
    ],
)
def test_parameters_are_shown_as_options_of_the_command(command: str | None, message: str, shown: str) -> None:
    assert as_options(message, COMMANDS.get(command)) == shown


def test_errors_and_the_log_name_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def explain(*_: object, **__: object) -> None:
        logging.getLogger("geocfl.models").warning("`bands` is ignored")
        logging.getLogger("geocfl.models").info("`path` is read")
        raise SceneError("pass `scale=10000`")

    monkeypatch.setattr("geocfl.info", explain, raising=False)
    done = CliRunner().invoke(app, ["info", "s.tif"])
    assert done.exit_code == 1
    assert done.stderr == "warning: --bands is ignored\nSCENE|MODEL is read\ngeocfl: pass --scale 10000\n"


@pytest.mark.integration
def test_a_full_standard_output_is_one_sentence(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run([COMMAND, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("geocfl: standard output or a file cannot be written (no space left on device)")
    assert done.stderr.count("\n") == 1


@pytest.mark.integration
@pytest.mark.skipif(sys.platform == "win32", reason="no shell")
def test_closed_standard_streams_change_no_file(tmp_path: Path) -> None:
    code = (
        "import os, sys; from geocfl.cli.entry import open_standard_streams; open_standard_streams();"
        "f = open('out', 'w'); os.write(2, b'noise'); print('noise', file=sys.stderr); print(f.fileno(), file=f)"
    )
    subprocess.run(["sh", "-c", f'exec "{sys.executable}" -c "{code}" <&- >&- 2>&-'], cwd=tmp_path, check=True)
    assert int((tmp_path / "out").read_text()) > 2


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/x/zones.gpkg"), "/x/zones.gpkg: permission denied; change its"),
        (OSError(36, "File name too long", "aaa"), "aaa: file name too long; use a shorter name"),
        (OSError(27, "File too large", "a\nb"), "a\\nb: file too large; raise the limit of file sizes"),
        (UnicodeEncodeError("utf-8", "\udcff.tif", 0, 1, "surrogates not allowed"), "the name is not UTF-8; rename it"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(error: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("geocfl.stats", refuse)
    result = CliRunner().invoke(app, ["stats", "a_lulc.tif", "--zones", "zones.gpkg"])
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert CliRunner().invoke(app, ["--debug", "stats", "a_lulc.tif", "--zones", "z.gpkg"]).exception is error


def test_names_and_tags_cannot_change_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def explain(*_: object, **__: object) -> dict[str, object]:
        logging.getLogger("geocfl.scenes").warning("%s: is odd", "a\x1b[31m.tif")
        return {"kind": "model", "origin": {"data\x1b]0;title\x07": "b\x9b1m\rc"}, "name": "d\u202ee"}

    monkeypatch.setattr("geocfl.info", explain, raising=False)
    done = CliRunner().invoke(app, ["info", "s.tif"])
    assert done.stderr == "warning: a\\x1b[31m.tif: is odd\n"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stdout)
    assert "b\\x9b1m\\rc" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
@pytest.mark.parametrize(("which", "code"), [("-n", 1), ("-Sn", 0)], ids=["hard", "soft"])
def test_a_low_limit_of_open_files_is_raised_or_named(which: str, code: int, tmp_path: Path) -> None:
    run = subprocess.run(
        ["sh", "-c", f'ulimit {which} 12; exec "{COMMAND}" info missing.tif'],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    named = "geocfl: this process may open only 12 files at once; raise the limit with ulimit -n 64\n"
    assert run.returncode == 1
    assert (run.stderr == named) == bool(code)
