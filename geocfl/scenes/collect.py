"""The scenes that a run is about, however a user names them: paths, patterns, lists and collections of STAC Items."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from geocfl.core.progress import Progress, counted, silent
from geocfl.errors import GeocflError, UsageError
from geocfl.scenes.bands import BandNumbers
from geocfl.scenes.find import find_source
from geocfl.scenes.formats.folder import find_folder, group_files
from geocfl.scenes.formats.stac import find_items
from geocfl.scenes.remote import shown
from geocfl.scenes.source import Source, file_name

LOOKING = 8
"""Scenes that are looked at at a time: a server answers in a second, and it is little but waiting."""
ENDINGS = frozenset({".tif", ".tiff", ".jp2", ".j2k", ".vrt", ".img", ".zip", ".json", ".geojson"})
"""Of files that a pattern may mean, in lower case."""
OUTPUT = re.compile(
    r"_(?:lulc(?:_polygons)?|confidence|probabilities|entropy|truecolor)\.\w+$"
    r"|_summary\.json$|\.stac\.json$|^catalog\.json$|\.aux\.xml$",
    re.IGNORECASE,
)
"""Names of what geocfl writes, which no pattern means."""
STEM_BYTES = 180
"""Of a stem with the names of folders before it, so that the names of its products fit any file system."""


@dataclass(frozen=True)
class Listed:
    """A scene that a run is about.

    Attributes:
        path: What the user passed; of an Item in a collection ``COLLECTION#ID``.
        source: Where its bands lie; None where they were not found.
        error: Why not; None where they were.
    """

    path: str
    source: Source | None
    error: GeocflError | None = None


def list_scenes(
    scenes: Iterable[str | Path | Source] | Path | Source = (),
    *,
    list_file: str | Path | None = None,
    stac_items: str | Path | None = None,
    bands: BandNumbers | None = None,
    progress: Progress = silent,
) -> list[Listed]:
    """Finds the scenes that a run is about.

    Files of one band each whose names differ by the band alone are one scene. A scene that is named twice counts once.
    Scenes of the same stem get the names of as many of their folders before it as tell them apart.

    Args:
        scenes: Paths, URLs, and patterns such as ``"scenes/*.tif"`` or ``"scenes/**/*.SAFE"`` that no shell expanded,
            one or several. A path that exists is no pattern.
        list_file: A text file with one of these in each line. Empty lines and those that begin with ``#`` do not count.
            Relative paths begin where the process is, as in what ``ls scenes/*.tif > scenes.txt`` writes.
        stac_items: A file or URL with STAC Items, see `geocfl.scenes.formats.stac.find_items`.
        bands: As for `geocfl.scenes.find_source`.
        progress: Told of scenes found.

    Returns:
        Each scene with its source, or with the error that it ended in, in the order in which they were named.

    Raises:
        UsageError: There is no scene, a list cannot be read, or a pattern matches nothing.
        SceneError: Two files hold the same band of a scene, or the STAC Items cannot be read.
    """
    given = [scenes] if isinstance(scenes, str | Path | Source) else scenes
    named = list(_expand([*given, *(_read_list(Path(list_file)) if list_file else [])]))
    found = [_of_item(*item) for item in (find_items(str(stac_items)) if stac_items else [])]
    if not named and not found:
        raise UsageError("there is no scene to map; pass paths, a pattern, a list or STAC Items")
    grouped = _grouped(named)

    def look(scene: str | Source) -> Listed:
        path = scene.path if isinstance(scene, Source) else shown(scene)
        try:
            return Listed(path, find_source(scene, bands))
        except GeocflError as error:
            return Listed(path, None, error)

    with ThreadPoolExecutor(LOOKING) as pool:
        looked = counted(pool.map(look, grouped), progress, "finding scenes", len(grouped), "scene")
        return _told_apart(_once([*looked, *found]))


def _of_item(path: str, item: Source | GeocflError) -> Listed:
    return Listed(path, item) if isinstance(item, Source) else Listed(path, None, item)


def _read_list(path: Path) -> list[str]:
    """The lines of a list that name something."""
    remedy = "pass a text file with a scene in each line"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows' editors begin with a mark
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not text; {remedy}") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
    stripped = [line.strip() for line in lines]
    named = [line for line in stripped if line and not line.startswith("#")]
    if not named:
        raise UsageError(f"{path}: names no scene; {remedy}")
    return named


def _expand(scenes: Iterable[str | Path | Source]) -> Iterator[str | Source]:
    """The same, with what patterns match in their place."""
    for scene in scenes:
        if isinstance(scene, Source):
            yield scene
            continue
        text = str(scene)
        if "://" in text and "*" in text and not text.lower().startswith(("https://", "http://")):
            raise UsageError(f"{text}: patterns are looked up on disk alone; write the addresses into a list instead")
        if not is_pattern(text):
            yield text
            continue
        matches = _matches(text)
        if not matches:
            raise UsageError(f"{text}: matches no scene; check the pattern, or pass the scenes themselves")
        yield from matches


def is_pattern(text: str) -> bool:
    """Whether a scene was named by a pattern: a path that exists is none, nor is a URL, which may look like one."""
    return glob.has_magic(text) and not (text.startswith("/vsi") or "://" in text or os.path.lexists(text))


def _matches(pattern: str) -> list[str]:
    """What a pattern matches that may be a scene: no products, no files within a scene that it matches too."""
    matches = {os.path.normpath(match) for match in glob.iglob(pattern, recursive=True)}
    folders = {match for match in matches if os.path.isdir(match) and _is_scene_folder(match)}
    files = {match for match in matches if os.path.isfile(match) and _may_be_scene(match)}
    kept = {match for match in folders | files if folders.isdisjoint(map(str, Path(match).parents))}
    return sorted(kept)


def _is_scene_folder(path: str) -> bool:
    try:
        return path.upper().endswith(".SAFE") or find_folder(path) is not None
    except GeocflError:
        return True  # broken, but a scene: its error is for the user


def _may_be_scene(path: str) -> bool:
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in ENDINGS and not OUTPUT.search(name)


def _grouped(named: Sequence[str | Source]) -> list[str | Source]:
    """The same, with files of one band each put together, and each path once."""
    order: dict[str, int] = {}
    for position, each in enumerate(named):
        order.setdefault(_path(each), position)
    once: dict[str, str] = {}  # before grouping, which refuses a band that is there twice
    for each in named:
        if isinstance(each, str):
            once.setdefault(_place(each), each)
    sources = [each for each in named if isinstance(each, Source)]
    return sorted([*sources, *group_files([*once.values()])], key=lambda each: order[_path(each)])


def _path(scene: str | Source) -> str:
    return scene.path if isinstance(scene, Source) else scene


def _place(path: str) -> str:
    """A path by which to know it again."""
    return path if "://" in path or path.startswith("/vsi") else os.path.realpath(path)


def _once(listed: Iterable[Listed]) -> list[Listed]:
    """Each scene once, of whichever form it was named in."""
    found: dict[tuple[object, ...], Listed] = {}
    for each in listed:
        found.setdefault(_identity(each), each)
    return [*found.values()]


def _identity(listed: Listed) -> tuple[object, ...]:
    """What two names of one scene have in common: its bands and what makes them reflectance."""
    source = listed.source
    if source is None or not source.bands:
        return (_place(listed.path),)
    return tuple((name, _place(band.path), band.index, band.scaling) for name, band in sorted(source.bands.items()))


def _told_apart(listed: Sequence[Listed]) -> list[Listed]:
    """The same, with stems that are all different, on file systems too that do not tell a from A.

    A stem that is nobody else's stays. What a scene is called depends on which scenes there are, not on their order nor
    on whether others can be read today.
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
    """What stands for a scene that cannot be read, under the name that its file would give it."""
    return Source(path, PurePosixPath(file_name(path)).stem, {})


def _clashing(stems: Mapping[int, str]) -> set[int]:
    """Those whose stem is another's too."""
    folded = {index: unicodedata.normalize("NFC", stem).casefold() for index, stem in stems.items()}
    counts = Counter(folded.values())
    return {index for index, stem in folded.items() if counts[stem] > 1}


def _names(source: Source, identity: tuple[object, ...]) -> Iterator[str]:
    """A scene's stem, then with more and more folders before it, then with digits made from what the scene is."""
    name = source.stem
    yield name
    for folder in _folders(source):
        name = f"{folder}_{name}"
        if len(name.encode()) > STEM_BYTES:
            break
        yield name
    digits = hashlib.sha256(repr(identity).encode()).hexdigest()
    yield from (f"{source.stem}_{digits[:length]}" for length in (8, 16, 32, 64))


def _folders(source: Source) -> list[str]:
    """Names of the folders that a scene lies in, from the inside outwards, fit to be part of a file's name."""
    if "://" in source.path:
        url = urlsplit(source.path)
        folders = [url.netloc, *PurePosixPath(url.path).parent.parts[1:]]
    else:
        *folders, last = Path(os.path.abspath(source.path)).parts
        if os.path.isdir(source.path) and not last.casefold().startswith(source.stem.casefold()):
            folders.append(last)  # its files, not itself, are what the scene is called after
    fit = (re.sub(r"[^\w.-]+", "_", folder).strip("._") for folder in reversed(folders))
    return [folder for folder in fit if folder]
