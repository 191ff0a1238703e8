"""The pages: they build without a warning, link to what is there, fetch nothing from elsewhere and are true."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import typer
import typer.main

import geocfl
from geocfl.cli import app
from geocfl.errors import GeocflError
from tests.snippets import ROOT, Block, Runner, blocks, write_stand_ins

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
GROUP: Any = typer.main.get_command(app)
GENERAL = {"--help", "--version", "--debug", "--install-completion", "--show-completion"}
FOREIGN = {"--memory-limit", "--nthreads", "--resources"}
"""Options of other programs that pages name."""
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# ---- the site ----


class Html(HTMLParser):
    """What a page links to, what it has a browser fetch, and the places in it that can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.places: set[str] = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(values["href"])
        elif "src" in values:
            self.fetched.append(values["src"])


def build(folder: Path, **environment: str) -> Path:
    """The site in a folder, built without a warning."""
    for module in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(module, reason="pip install --group docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING  -" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def html(site: Path) -> dict[str, Html]:
    """Every page of the site by its address from the root, such as ``"/how-to/formats/"``."""
    return {
        f"/{path.relative_to(site).as_posix()}".removesuffix("index.html"): Html(path.read_text("utf-8"))
        for path in site.rglob("*.html")
    }


def test_no_link_or_anchor_is_broken(site: Path, html: dict[str, Html]) -> None:
    broken = []
    for address, page in html.items():
        for link in page.links + page.fetched:
            target = urlsplit(urljoin(address, link))
            if target.scheme or target.netloc or address == "/404.html":
                continue
            if target.path in html:
                if unquote(target.fragment) not in html[target.path].places:
                    broken.append((address, link))
            elif not (site / unquote(target.path).lstrip("/")).is_file():
                broken.append((address, link))
    assert broken == []


def test_the_site_asks_nobody_else_for_anything(site: Path, html: dict[str, Html]) -> None:
    fetched = {link for page in html.values() for link in page.fetched}
    assert fetched
    assert [link for link in fetched if urlsplit(link).netloc] == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text("utf-8")), sheet


def test_equations_are_drawn_by_the_browser(site: Path) -> None:
    text = (site / "explanation/class-focal-loss/index.html").read_text("utf-8")
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in text
    assert [path for path in site.rglob("*.html") if "arithmatex" in path.read_text("utf-8")] == []


def test_the_reference_has_every_command_option_and_function(site: Path, html: dict[str, Html]) -> None:
    text = (site / "reference/cli/index.html").read_text("utf-8")
    for name, command in GROUP.commands.items():
        assert name in html["/reference/cli/"].places
        for parameter in command.params:
            for option in (o for o in parameter.opts if o.startswith("--")):
                assert f"<code>{option}" in text, f"{name} {option}"
    for name in set(geocfl.__all__) - {"__version__"}:
        assert f"geocfl.{name}" in html["/reference/api/"].places


@pytest.mark.integration
def test_pages_and_their_search_from_a_disk_without_a_network(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("no Chromium is installed")
    site = build(tmp_path, OFFLINE="true")
    asked: list[str] = []
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index", "explanation/class-focal-loss", "reference/cli", "reference/files", "results"):
            page.goto((site / f"{name}.html").as_uri())
            wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wider <= 0, f"{name} is wider than a phone"
        page.set_viewport_size({"width": 1280, "height": 900})
        page.keyboard.press("f")
        page.locator(".md-search__input:focus").wait_for()
        page.keyboard.type("temperature")
        page.locator(".md-search-result__item").first.wait_for(state="attached")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


# ---- commands ----


def commands_of(page: Path) -> Iterator[tuple[str, list[str]]]:
    for block in blocks(page):
        if block.language == "sh":
            for words in block.commands():
                yield str(block), words


@every_page
def test_every_command_parses(page: Path) -> None:
    for where, words in commands_of(page):
        if words[0] in GENERAL:
            continue
        assert words[0] in GROUP.commands, f"{where}: geocfl has no command {words[0]}"
        try:
            GROUP.commands[words[0]].make_context(words[0], words[1:])
        except typer.Exit:
            pass
        except GeocflError as error:
            pytest.fail(f"{where}: {error}")
        except Exception as error:
            pytest.fail(f"{where}: geocfl {shlex.join(words)}: {getattr(error, 'message', error)}")


@every_page
def test_every_command_and_option_in_running_text_exists(page: Path) -> None:
    options = {command: {o for p in GROUP.commands[command].params for o in p.opts} for command in GROUP.commands}
    anywhere = set().union(*options.values()) | GENERAL | FOREIGN
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for code in INLINE.findall(prose):
        words = code.split()
        known = anywhere
        if words[0] == "geocfl" and len(words) > 1 and not words[1].startswith("-") and words[1].islower():
            assert words[1] in options, f"{page.name}: `{code}`"
            known = options[words[1]] | GENERAL
        if words[0] == "geocfl" or words[0].startswith("--"):
            named = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
            assert named <= known, f"{page.name}: `{code}`"


# ---- Python ----


def python_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize("block", python_blocks(), ids=str)
def test_python_names_what_is_there(block: Block) -> None:
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "geocfl":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)
        if isinstance(node, ast.Call) and (function := resolved(node.func)) is not None:
            bind(function, len(node.args), [keyword.arg for keyword in node.keywords if keyword.arg])


def bind(function: Any, positional: int, keywords: list[str]) -> None:
    """Raises TypeError if a function does not accept these arguments, those of its ``**options`` included."""
    signature = inspect.signature(function)
    signature.bind_partial(*[None] * positional, **dict.fromkeys(keywords))
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD and (
            unknown := set(keywords) - {*signature.parameters, *options_of(function, parameter)}
        ):
            raise TypeError(f"{function.__name__} takes no {', '.join(sorted(unknown))}")


def options_of(function: Any, parameter: inspect.Parameter) -> set[str]:
    """The keys of the TypedDict in ``**options: Unpack[TypedDict]``."""
    name = str(parameter.annotation).removeprefix("Unpack[").removesuffix("]")
    return set(inspect.unwrap(function).__globals__[name].__annotations__)


@pytest.mark.parametrize(
    ("function", "known", "misspelt"),
    [
        (geocfl.map_scene, "memory stride", "strides"),
        (geocfl.plan, "tiles stride", "tile"),
        (geocfl.train, "resume backbone", "backbones"),
        (geocfl.mosaic, "by", "bye"),
    ],
)
def test_a_misspelt_argument_is_noticed(function: Any, known: str, misspelt: str) -> None:
    bind(function, 1, known.split())
    with pytest.raises(TypeError, match=misspelt):
        bind(function, 1, [misspelt])


def resolved(node: ast.expr) -> Any:
    """The object that ``geocfl.a.b`` names; None for names of others."""
    names = ast.unparse(node).split(".")
    if names[0] != "geocfl":
        return None
    found: Any = geocfl
    for name in names[1:]:
        found = getattr(found, name)
    return found


# ---- what pages promise ----


def test_architecture_has_a_line_for_every_module() -> None:
    text = (DOCS / "architecture.md").read_text("utf-8")
    package = ROOT / "geocfl"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    told = set(re.findall(r"^\| `([\w/]+\.py)` \| .{20,} \|$", text, flags=re.MULTILINE))
    assert told == modules


def test_troubleshooting_quotes_messages_of_the_package() -> None:
    texts = []
    for module in (ROOT / "geocfl").rglob("*.py"):
        tree = ast.parse(module.read_text("utf-8"))
        texts += [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    page = (DOCS / "how-to/troubleshooting.md").read_text("utf-8")
    quoted = re.findall(r"^### `(.+)`$", page, flags=re.MULTILINE)
    assert quoted
    assert [message for message in quoted if not any(message in text for text in texts)] == []


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), flags=re.MULTILINE))
    assert listed == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_out_of_the_repository_root(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_citation_names_the_version() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), flags=re.MULTILINE)
    assert cited
    assert geocfl.__version__.removesuffix(".dev0") == cited[1]


# ---- tutorials ----


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(DOCS.glob("tutorials/*.md")), ids=lambda page: page.stem)
def test_tutorial(page: Path, tmp_path: Path) -> None:
    """From its first block to its last, in a folder of stand-ins."""
    write_stand_ins(tmp_path)
    for block in blocks(page):
        if block.language in ("sh", "python"):
            Runner(tmp_path, "").run(block)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["python", "extending"])
def test_pages_on_python(name: str, tmp_path: Path) -> None:
    """Their blocks build on one another."""
    write_stand_ins(tmp_path)
    page = DOCS / f"how-to/{name}.md"
    text = "\n".join(block.text for block in blocks(page) if block.language == "python")
    Runner(tmp_path, "").run(Block(page, 1, "python", "run", text))
