"""Lists the scenes of a run from paths, patterns, text files and collections of STAC Items."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from geocfl.core.files import refusal
from geocfl.core.progress import Progress, counted, silent
from geocfl.errors import GeocflError, SceneError, UsageError
from geocfl.scenes.bands import BandNumbers
from geocfl.scenes.find import find_source, named_source
from geocfl.scenes.formats.folder import find_folder, group_files
from geocfl.scenes.formats.stac import find_items
from geocfl.scenes.source import Source, file_name
from geocfl.scenes.urls import gdal_path, is_public, shown, without_secrets

LOOKING = 8
"""Scenes that are opened at a time; this is mostly waiting for servers."""
ENDINGS = frozenset({".tif", ".tiff", ".jp2", ".j2k", ".vrt", ".img", ".nc", ".dim", ".zip", ".json", ".geojson"})
"""Endings of files that a pattern may match, in lower case."""
OUTPUT = re.compile(
    r"_(?:lulc(?:_polygons)?|confidence|probabilities|entropy|novelty|valid|sets|truecolor)\.\w+$"
    r"|_cube\.zarr\.zip$|_summary\.json$|\.stac\.json$|^(?:catalog|collection)\.json$|\.aux\.xml$",
    re.IGNORECASE,
)
"""Names of files that geocfl writes, which no pattern matches."""
STEM_BYTES = 180
"""Maximum length of a stem with folder names before it, so that product names fit any file system."""


@dataclass(frozen=True)
class Listed:
    """A scene of a run.

    Attributes:
        path: What the user passed; ``COLLECTION#ID`` for an Item in a collection.
        source: Where its bands lie; None if they were not found.
        error: Why they were not found; None if they were.
        folder: Folder of its map below the output folder, see `geocfl.scenes.layout`; empty for the output folder.
        given: Paths and URLs that name this scene when they are passed again; empty if its links hold secrets, or it is
            an Item in a collection or a `Source`.
    """

    path: str
    source: Source | None
    error: GeocflError | None = None
    folder: str = ""
    given: tuple[str, ...] = ()

    def below(self, out: Path) -> Path:
        """The folder of its map, on a disk or in a store."""
        return out / self.folder if self.folder else out


def list_scenes(
    scenes: Iterable[str | Path | Source] | Path | Source = (),
    *,
    list_file: str | Path | None = None,
    stac_items: str | Path | None = None,
    bands: BandNumbers | None = None,
    open_all: bool = True,
    progress: Progress = silent,
) -> list[Listed]:
    """Finds the scenes of a run.

    Files of one band each whose names differ only by the band are one scene. A scene that is named twice counts once.
    Several may have the same stem, see `told_apart` and `geocfl.scenes.layout`.

    Args:
        scenes: One or several paths, URLs or patterns such as ``"scenes/*.tif"`` or ``"scenes/**/*.SAFE"``. A path that
            exists is not a pattern.
        list_file: A text file with one of these per line. Empty lines and lines that begin with ``#`` are ignored.
            Paths are relative to the current folder, as in the output of ``ls scenes/*.tif > scenes.txt``.
        stac_items: A file or URL with STAC Items, see `geocfl.scenes.formats.stac.find_items`.
        bands: As for `geocfl.scenes.find_source`.
        open_all: Whether to open also rasters that the names of their files tell apart. If not, their sources come from
            `geocfl.scenes.find.named_source`, and a broken one is only found when it is opened.
        progress: Called with the number of scenes found.

    Returns:
        Each scene with its source, or the error that prevented it, in the order given.

    Raises:
        UsageError: There is no scene, a list cannot be read, or a pattern matches nothing.
        SceneError: Two files hold the same band of a scene, or the STAC Items cannot be read.
    """
    given = [scenes] if isinstance(scenes, str | Path | Source) else scenes
    named = list(_expand([*given, *(_read_list(Path(list_file)) if list_file else [])]))
    found = [_of_item(*item) for item in (find_items(str(stac_items)) if stac_items else [])]
    if not named and not found:
        raise UsageError("there is no scene to map; give paths, a pattern, a list or STAC Items")
    grouped = _grouped(named)
    sources = {id(each) for each in named if isinstance(each, Source)}

    def look(scene: str | Source) -> Listed:
        path, given = _path(scene), () if id(scene) in sources else _given(scene)
        try:
            source = None if open_all or isinstance(scene, Source) else named_source(scene)
            return Listed(path, source or find_source(scene, bands), given=given)
        except GeocflError as error:
            return Listed(path, None, error, given=given)
        except UnicodeEncodeError:
            return Listed(path, None, SceneError(f"{path!a}: the name is not UTF-8; rename it"))
        except OSError as error:
            reason = error.strerror or error
            why = without_secrets(str(reason))
            return Listed(path, None, SceneError(f"{path}: cannot be read ({why}); pass a readable file"), given=given)

    with ThreadPoolExecutor(LOOKING) as pool:
        looked = counted(pool.map(look, grouped), progress, "finding scenes", len(grouped), "scene")
        listed = [*looked, *found]
    held = {_place(band.path) for each in listed if each.source for band in each.source.bands.values()}
    for index, each in enumerate(listed):
        if each.source and each.source.raster and _raster(each.source) in held:  # only its bands tell it from the other
            listed[index] = replace(look(each.source), given=each.given)
    return _once(listed)


def _given(scene: str | Source) -> tuple[str, ...]:
    """What names a path or grouped files when it is passed again; nothing if that holds secrets."""
    bands = (*scene.bands.values(), scene.scl) if isinstance(scene, Source) else ()
    paths = [scene.path if isinstance(scene, Source) else scene, *(band.path for band in bands if band)]
    return tuple(dict.fromkeys(map(shown, paths))) if all(map(is_public, paths)) else ()


def _of_item(path: str, item: Source | GeocflError) -> Listed:
    return Listed(path, item) if isinstance(item, Source) else Listed(path, None, item)


def _read_list(path: Path) -> list[str]:
    """The lines of a list that name a scene."""
    remedy = "use a text file with one scene per line"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows editors begin files with a byte order mark
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not text; {remedy}") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    if number := next((number for number, line in enumerate(lines, start=1) if "\0" in line), 0):
        raise UsageError(f"{path}: line {number} holds a NUL character; {remedy}")
    stripped = [line.strip() for line in lines]
    named = [line for line in stripped if line and not line.startswith("#")]
    if not named:
        raise UsageError(f"{path}: names no scene; {remedy}")
    return named


def _expand(scenes: Iterable[str | Path | Source]) -> Iterator[str | Source]:
    """The same, with patterns replaced by what they match."""
    for scene in scenes:
        if isinstance(scene, Source):
            yield scene
            continue
        text = str(scene)
        if "://" in text and "*" in text and not text.lower().startswith(("https://", "http://")):
            raise UsageError(
                f"{shown(text)}: patterns work only for local files; list the addresses in a text file instead"
            )
        if not is_pattern(text):
            yield text
            continue
        matches = _matches(text)
        if not matches:
            _check_listable(text)
            raise UsageError(f"{text}: matches no scene; correct the pattern")
        yield from matches


def is_pattern(text: str) -> bool:
    """Whether text is a pattern. An existing path or a URL is not, even if it contains a wildcard."""
    return glob.has_magic(text) and not (text.startswith("/vsi") or "://" in text or os.path.lexists(text))


def _check_listable(pattern: str) -> None:
    """Checks that the folder in which a pattern is to match can be listed; patterns themselves match nothing there.

    Raises:
        UsageError: It cannot.
    """
    parts = Path(pattern).parts
    folder = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    try:
        next(os.scandir(folder), None)
    except PermissionError as error:
        raise UsageError(refusal(error)) from error
    except OSError:  # there is none
        return


def _matches(pattern: str) -> list[str]:
    """The scenes that a pattern matches, without products of geocfl and files inside a matched scene."""
    matches = {os.path.normpath(match) for match in glob.iglob(pattern, recursive=True)}
    folders = {match for match in matches if os.path.isdir(match) and _is_scene_folder(match)}
    files = {match for match in matches if os.path.isfile(match) and _may_be_scene(match)}
    kept = {match for match in folders | files if folders.isdisjoint(map(str, Path(match).parents))}
    return sorted(kept)


def _is_scene_folder(path: str) -> bool:
    try:
        return path.lower().endswith((".safe", ".zarr")) or find_folder(path) is not None
    except GeocflError:
        return True  # a broken scene, whose error the user should see


def _may_be_scene(path: str) -> bool:
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in ENDINGS and not OUTPUT.search(name)


def _grouped(named: Sequence[str | Source]) -> list[str | Source]:
    """The same, with files of one band each grouped into scenes, and each path once."""
    order: dict[str, int] = {}
    for position, each in enumerate(named):
        order.setdefault(_path(each), position)
    once: dict[str, str] = {}  # before grouping, which rejects duplicate bands
    for each in named:
        if isinstance(each, str):
            once.setdefault(_place(each), each)
    sources = [each for each in named if isinstance(each, Source)]
    return sorted([*sources, *group_files([*once.values()])], key=lambda each: order[_path(each)])


def _path(scene: str | Source) -> str:
    """The path of a scene as a source has it, whatever form it was named in."""
    return scene.path if isinstance(scene, Source) else shown(scene)


def _raster(source: Source) -> str:
    """The raster of a source that was not opened, in a form that can be compared."""
    return _place(gdal_path(source.raster))


def _place(path: str) -> str:
    """A path in a form that can be compared."""
    return path if "://" in path or path.startswith("/vsi") else os.path.realpath(path)


def _once(listed: Iterable[Listed]) -> list[Listed]:
    """Each scene once, in whatever form it was named."""
    found: dict[tuple[object, ...], Listed] = {}
    for each in listed:
        found.setdefault(_identity(each), each)
    return [*found.values()]


def _identity(listed: Listed) -> tuple[object, ...]:
    """What identifies a scene under any name: its bands and their scaling, or its raster if it was not opened."""
    source = listed.source
    if source is not None and source.raster:
        return (_raster(source),)
    if source is None or not source.bands:
        return (_place(listed.path),)
    return tuple((name, _place(band.path), band.index, band.scaling) for name, band in sorted(source.bands.items()))


def told_apart(listed: Sequence[Listed]) -> list[Listed]:
    """The same scenes with unique stems, also on file systems that ignore case.

    Those with the same stem are prefixed with as many folder names as needed. A unique stem stays. Names depend on
    which scenes there are, not on their order or on which of them can be read, so this suits outputs made of all.
    """
    names = {index: _names(each.source or _unread(each.path), _identity(each)) for index, each in enumerate(listed)}
    stems = {index: next(each) for index, each in names.items()}
    renamed = clashing = _clashing(stems)
    while clashing:
        stems |= {index: next(names[index]) for index in clashing}
        clashing = _clashing(stems) & renamed
    return [
        replace(each, source=replace(each.source, stem=stems[index])) if each.source else each
        for index, each in enumerate(listed)
    ]


def _unread(path: str) -> Source:
    """A stand-in for a scene that cannot be read, named after its file."""
    return Source(path, PurePosixPath(file_name(path)).stem, {})


def _clashing(stems: Mapping[int, str]) -> set[int]:
    """Scenes that share their stem with another."""
    folded = {index: unicodedata.normalize("NFC", stem).casefold() for index, stem in stems.items()}
    counts = Counter(folded.values())
    return {index for index, stem in folded.items() if counts[stem] > 1}


def _names(source: Source, identity: tuple[object, ...]) -> Iterator[str]:
    """Possible names: the stem, then with more and more folders before it, then with digits of its identity."""
    name = source.stem
    yield name
    for folder in safe_folders(source):
        name = f"{folder}_{name}"
        if len(name.encode()) > STEM_BYTES:
            break
        yield name
    digits = hashlib.sha256(repr(identity).encode()).hexdigest()
    yield from (f"{source.stem}_{digits[:length]}" for length in (8, 16, 32, 64))


def safe_folders(source: Source) -> list[str]:
    """Names of the folders around a scene, innermost first, made safe for file names."""
    if "://" in source.path:
        url = urlsplit(source.path)
        folders = [url.netloc, *PurePosixPath(url.path).parent.parts[1:]]
    else:
        *folders, last = Path(os.path.abspath(source.path)).parts
        if os.path.isdir(source.path) and not last.casefold().startswith(source.stem.casefold()):
            folders.append(last)  # the scene is named after its files, not its folder
    fit = (re.sub(r"[^\w.-]+", "_", folder).strip("._") for folder in reversed(folders))
    return [folder for folder in fit if folder]
