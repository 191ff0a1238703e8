"""Fuzzes geocfl's own parsers with atheris, guided by coverage: only a `GeocflError` may come out of them.

    pip install atheris                                  # Linux, Python 3.11 or later
    python benchmarks/fuzz_parsers.py --seconds 120      # for each parser
    python benchmarks/fuzz_parsers.py --parser model --seconds 600

Each parser runs in a process of its own, from one intact document. An input that raises anything else, or takes more
than five seconds or two gigabytes, is written to the folder ``--found``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # generators of the tests


def _parsers(folder: Path) -> dict[str, tuple[Callable[[bytes], object], bytes]]:
    """Each parser as a function of a file's content, and an intact content."""
    from trials import material

    from geocfl.cli import parse
    from geocfl.data.patches import read_patches
    from geocfl.data.splits import listed
    from geocfl.mapping.memory import memory_budget
    from geocfl.models.bundle import Bundle
    from geocfl.scenes.acquisition import find_datetime
    from geocfl.scenes.area import check_box
    from geocfl.scenes.bands import band_name, check_bands
    from geocfl.scenes.baseline import find_baseline
    from geocfl.scenes.collect import _read_list
    from geocfl.scenes.formats.safe import read_metadata
    from geocfl.scenes.formats.stac import find_item, find_items
    from geocfl.training.config import read_config
    from tests.scenes.safe_product import metadata_xml

    (folder / "model").mkdir()
    bundle = material.write_model(folder / "model")
    item = material.write_item(folder)
    patches = read_patches(material.write_patches(folder / "patches", each=2), ("B04", "B03", "B02"))

    def of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        path = folder / name

        def parsed(content: bytes) -> object:
            path.write_bytes(content)
            return read(path)

        return parsed

    def options(content: bytes) -> None:
        text = content.decode(errors="surrogateescape")
        if box := _quiet(parse.box, text):
            _quiet(check_box, box)
        if isinstance(bands := _quiet(parse.bands, text), dict):
            _quiet(check_bands, bands)
        for each in (
            parse.vector_formats, parse.mask_classes, parse.mask_bits, parse.patch_bands, parse.class_order,
            memory_budget, band_name,
        ):  # fmt: skip
            _quiet(each, text)
        find_datetime(text, {"TIFFTAG_DATETIME": text, "ACQUISITIONDATETIME": text})
        find_baseline("x.tif", {"PROCESSING_BASELINE": text})

    names = b"Forest/Forest_1.png\nRiver/River_2.png\n"
    images = [f"GRANULE/G/IMG_DATA/R10m/T33TUL_20220601T100031_{band}_10m.jp2" for band in ("B02", "B03", "B04")]
    config = {"data": "EuroSAT", "backbone": "lite0", "epochs": 3, "lr": 0.001, "bands": ["B04", "B03", "B02"]}
    return {
        "safe": (
            of_file("MTD_MSIL2A.xml", lambda path: read_metadata("S2A.SAFE", path.parent, path.name)),
            metadata_xml("L2A", "04.00", images, offsets={"B02": -1000, "B03": -1000, "B04": -1000}).encode(),
        ),
        "item": (of_file("item.json", lambda path: find_item(str(path))), item.read_bytes()),
        "items": (
            of_file("items.json", lambda path: find_items(str(path))),
            json.dumps({"type": "FeatureCollection", "features": [json.loads(item.read_text())]}).encode(),
        ),
        "model": (of_file("model/model.json", lambda path: Bundle.load(bundle)), (bundle / "model.json").read_bytes()),
        "config": (of_file("config.json", read_config), json.dumps(config).encode()),
        "list": (of_file("list.txt", _read_list), b"a.tif\n# comment\n\nfolder/b.tif\n"),
        "split": (of_file("train.txt", lambda path: listed(patches, path)), names),
        "options": (options, b"13.2,45.7,13.4,45.8"),
    }


def _quiet(parse: Callable[..., object], value: object) -> object:
    """What a parser returns; None if it refuses the value."""
    from geocfl.errors import GeocflError

    try:
        return parse(value)
    except GeocflError:
        return None


def fuzz(name: str, seconds: int, found: Path) -> None:
    """Fuzzes one parser; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["geocfl"]):
        import geocfl.cli.parse
        import geocfl.models.bundle
        import geocfl.scenes.collect
        import geocfl.scenes.formats.safe
        import geocfl.scenes.formats.stac
        import geocfl.training.config
    assert geocfl
    folder = Path(tempfile.mkdtemp(prefix="geocfl-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    parser, intact = _parsers(folder)[name]
    (folder / "corpus").mkdir()
    (folder / "corpus/intact").write_bytes(intact)
    found.mkdir(parents=True, exist_ok=True)
    limits = ["-timeout=5", "-rss_limit_mb=3000", "-max_len=20000", f"-artifact_prefix={found}/{name}-"]
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", *limits, str(folder / "corpus")], lambda data: _quiet(parser, data)
    )
    atheris.Fuzz()


def main() -> None:
    names = ("safe", "item", "items", "model", "config", "list", "split", "options")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--parser", choices=names)
    parser.add_argument("--found", type=Path, default=Path("found"))
    options = parser.parse_args()
    if options.parser:
        fuzz(options.parser, options.seconds, options.found)
        return
    print("| parser | inputs | seconds | result |\n| --- | ---: | ---: | --- |", flush=True)
    failed = False
    for name in names:
        command = [sys.executable, __file__, "--parser", name, "--seconds", str(options.seconds)]
        done = subprocess.run([*command, "--found", str(options.found)], capture_output=True, text=True, check=False)
        runs = re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)
        result = "only errors of its own" if done.returncode == 0 else f"exit code {done.returncode}"
        print(f"| {name} | {int(runs[-1]) if runs else 0:,} | {options.seconds} | {result} |", flush=True)
        if done.returncode:
            failed = True
            print(done.stderr[-3000:], file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
