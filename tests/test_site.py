"""The site: its reference has every public name, and its pages are whole on a phone and on a desk."""

import html
import importlib
import inspect
import json
import pkgutil
import re
import shutil
import subprocess
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import clr.integrations

ROOT = Path(__file__).parent.parent
SITE = ROOT / "build" / "site"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LIBRARIES = {f"clr.integrations.{module.name}" for module in pkgutil.iter_modules(clr.integrations.__path__)}
LIBRARIES -= {"clr.integrations.updates"}  # what they share
PUBLIC = ["clr", "clr.comparison", "clr.jax", "clr.keras", "clr.tensorflow", "clr.torch", *sorted(LIBRARIES)]

built = pytest.mark.skipif(not SITE.exists(), reason="`make docs` builds the site")


def public(module: str) -> dict[str, object]:
    """What a module offers: the names of its ``__all__``, else the functions and classes that it defines."""
    found = pytest.importorskip(module, exc_type=ImportError)
    defined = {name: thing for name, thing in vars(found).items() if getattr(thing, "__module__", None) == module}
    own = [name for name, thing in defined.items() if inspect.isclass(thing) or inspect.isroutine(thing)]
    return {name: getattr(found, name) for name in getattr(found, "__all__", own) if not name.startswith("_")}


def methods(thing: object) -> dict[str, object]:
    """The public methods and properties that a class itself defines."""
    kinds = (property, cached_property, classmethod, staticmethod)
    members = vars(thing).items() if inspect.isclass(thing) else ()
    return {
        name: member
        for name, member in members
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, kinds))
    }


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.rst"))
    listed = re.findall(r"^\.\. auto(?:function|class|exception):: ([\w.]+)\.(\w+)$", pages, re.MULTILINE)
    assert len(set(listed)) == len(listed)
    # A thing that two modules have, such as `clr.compare`, is described once.
    places = [(importlib.import_module(place), name) for place, name in listed if place in ("clr", module)]
    described = [getattr(place, name) for place, name in places]
    things = public(module)
    assert things
    assert [name for name, thing in things.items() if not any(thing is other for other in described)] == []


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_a_docstring(module: str) -> None:
    things = public(module)
    things |= {f"{name}.{own}": method for name, thing in things.items() for own, method in methods(thing).items()}
    assert [name for name, thing in things.items() if not (thing.__doc__ or "").strip()] == []


class Page(HTMLParser):
    """What a page of the site refers to, and the places in it that can be referred to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.places.add(value or "")
            elif name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("href", "src") and value:
                self.loads.append(value)


@built
def test_links_of_the_site_lead_somewhere_and_nothing_is_loaded_from_elsewhere() -> None:
    pages = {path.resolve(): Page(path) for path in SITE.rglob("*.html")}
    assert len(pages) > 15
    broken = []
    for path, page in pages.items():
        assert [load for load in page.loads if urlsplit(load).scheme or load.startswith("//")] == []
        for link in [*page.links, *page.loads]:
            to = urlsplit(link)
            if to.scheme in ("http", "https"):
                continue
            target = (path.parent / unquote(to.path)).resolve() if to.path else path
            place = "" if target.suffix != ".html" else unquote(to.fragment)
            if to.scheme or not target.is_file() or (target in pages and place not in pages[target].places):
                broken.append(f"{path.name}: {link}")
    assert broken == []


@built
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_pages_of_the_site_in_a_browser(tmp_path: Path) -> None:
    pages = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html"))
    pages.append("search.html?q=warm_restarts")
    # Each page in a frame, for a window of Chromium is no less than 500 wide; and what a script sees of it.
    frames = "\n".join(
        f'<iframe src="{(SITE / page.partition("?")[0]).as_uri()}{"?" * ("?" in page)}{page.partition("?")[2]}"'
        f' title="{page} at {width}" style="width: {width}px; height: 800px; border: 0"></iframe>'
        for page in pages
        for width in (390, 1200)
    )
    (tmp_path / "frames.html").write_text(f"""<!doctype html><title></title>{frames}<script>
const seen = frame => {{
  const page = frame.contentWindow, body = page.document.querySelector("article") ?? page.document.body;
  const scrolls = e => e && (getComputedStyle(e).overflowX != "visible" || (e != body && scrolls(e.parentElement)));
  const over = e => e.getBoundingClientRect().right > page.innerWidth + 1 && !scrolls(e.parentElement);
  return {{
    page: frame.title, width: page.innerWidth,
    sideways: page.document.documentElement.scrollWidth - page.innerWidth,
    over: [...body.querySelectorAll("*")].filter(over).map(e => e.outerHTML.slice(0, 100)),
    images: [...page.document.images].filter(e => !(e.complete && e.naturalWidth)).map(e => e.src),
    loaded: page.performance.getEntriesByType("resource").map(e => e.name),
    found: page.document.querySelectorAll("#search-results li").length,
  }};
}};
onload = () => {{
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(seen));
}};
</script>""")
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1300,900", "--enable-logging=stderr"]
    command += ["--virtual-time-budget=10000", "--dump-dom", (tmp_path / "frames.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(html.unescape(str(re.findall("<title>(.*?)</title>", done.stdout, re.DOTALL)[0])))
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    assert len(found) == 2 * len(pages)
    for frame in found:
        assert frame["width"] in (390, 1200)
        assert (frame["sideways"] <= 0, frame["over"], frame["images"]) == (True, [], []), frame
        assert [name for name in frame["loaded"] if not name.startswith(("file:", "data:"))] == []
    assert all(frame["found"] > 0 for frame in found[-2:])
