"""The pages that `make book` built: every link leads somewhere, every notebook is in them."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "_book"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
bs4 = pytest.importorskip("bs4", reason="the extra book is not installed")
pytestmark = pytest.mark.skipif(not PAGES.exists(), reason="`make book` has not run")


def page(path: Path) -> "bs4.BeautifulSoup":
    return bs4.BeautifulSoup(path.read_text("utf-8"), "html.parser")


def test_links_and_images_lead_somewhere() -> None:
    pages = {path.resolve(): page(path) for path in PAGES.rglob("*.html")}
    names = {path: {tag["id"] for tag in each.find_all(id=True)} for path, each in pages.items()}
    found, lost = 0, []
    for path, each in pages.items():
        for tag in each.find_all(["a", "img"]):
            link = urlsplit(tag.get("href") or tag.get("src") or "")
            if link.scheme or link.netloc or not (link.path or link.fragment):
                continue
            found += 1
            target = (path.parent / unquote(link.path)).resolve() if link.path else path
            there = target.exists() and (
                not link.fragment or target not in names or link.fragment in names[target]
            )
            lost += [f"{path.relative_to(PAGES)}: {link.geturl()}"] * (not there)
    assert found > 1000 and lost == []


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=str)
def test_every_notebook_is_there_with_what_it_gave(notebook: Path) -> None:
    shown = page(PAGES / "notebooks" / f"{notebook.stem}.html")
    assert shown.select(".cell_output") and notebook.stem in str(page(PAGES / "docs/index.html"))


def test_no_two_pages_have_one_title() -> None:
    links = page(PAGES / "docs/index.html").select(".sidebar-tree a.reference.internal")
    titles = {link["href"]: link.get_text() for link in links}
    shared = Counter(title for href, title in titles.items() if "notebooks/" not in href)
    assert [title for title, times in shared.items() if times > 1] == []


@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
@pytest.mark.parametrize(
    ("name", "images", "sounds"),
    [("docs/index", 0, 0), ("docs/results", 3, 0), ("notebooks/08_look_at_it", 5, 3)],
)
def test_a_browser_shows_it(name: str, images: int, sounds: int, tmp_path: Path) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    options += [f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--dump-dom"]
    command = [BROWSER, *options, (PAGES / f"{name}.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    shown = bs4.BeautifulSoup(done.stdout, "html.parser")
    assert "CONSOLE" not in done.stderr, done.stderr
    assert shown.body.get("data-theme"), "its scripts did not run"
    assert len(shown.article.find_all("img")) >= images
    assert len(shown.article.find_all("audio")) >= sounds
