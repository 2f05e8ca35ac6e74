"""The page of a run: it tells the result, shows moving clips, treats every text as text, and loads no model."""

import dataclasses
import html.parser
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_world

from promptreel import registry
from promptreel.config import EvaluateStage, load_recipe
from promptreel.errors import RunError
from promptreel.pipeline import run
from promptreel.pipeline.summary import summarise
from promptreel.report import gif
from promptreel.report.gallery import marked, paired_clips
from promptreel.report.page import final_system, write
from promptreel.store import Run, Summary
from promptreel.types import ScoredClip

HOSTILE = [
    "<script>alert(1)</script> red ball",
    '"a \'blue\' box" onload="alert(2)" &lt;b&gt;</p></main>',
    "👩‍👩‍👧‍👦🏳️‍🌈 green star 💥 \u202eevil\u202c",
    "كرة حمراء تتحرك إلى اليمين, red circle",
    "{{ 7 * 7 }} {% raw %} yellow ring {# no #}",
    "very " * 9_998 + "red ball",
    "x" * 3_000 + " cross",
    "</style><style>body{display:none}</style> white square",
]
"""Pasted texts. Each takes the place of a query of the run, and of its prompts."""
QUERIES = 12


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the directory of a finished run of the small world."""
    with pytest.MonkeyPatch.context() as patch:
        small_world.register(patch)
        place = tmp_path_factory.mktemp("small-world") / "run"
        run(small_world.recipe("tiny-test", QUERIES), place)
        (place / "recipe.toml").write_text("# the recipe <as> given")
        yield place


@pytest.fixture(scope="module")
def hostile(finished: Path) -> Path:
    """Return the directory of the same run with hostile queries and prompts in place of most."""
    place = finished.with_name("hostile")
    shutil.copytree(finished, place)
    with sqlite3.connect(place / "run.db") as connection:
        keys = [key for (key,) in connection.execute("SELECT DISTINCT query FROM evaluations ORDER BY query")]
        for key, text in zip(keys, HOSTILE, strict=False):
            connection.execute("UPDATE queries SET text = ? WHERE id = ?", (text, key))
            stored = connection.execute("SELECT system, candidate FROM evaluations WHERE query = ?", (key,)).fetchall()
            for system, row in stored:
                changed = json.loads(row)
                changed["text"] = text if system == "raw" else f"{changed['text']} {text}"
                changed["verdict"]["facts"] = [["<b>shape</b> " + text[:40], "lost", "", False]]
                where = (json.dumps(changed), key, system)
                connection.execute("UPDATE evaluations SET candidate = ? WHERE query = ? AND system = ?", where)
    return place


def page_of(place: Path) -> str:
    """Draw the page of a run, and return it."""
    recipe = small_world.recipe("tiny-test", QUERIES)
    with Run(place, writable=False) as opened:
        return write(opened, recipe, summarise(recipe, opened)).read_text(encoding="utf-8")


class Reader(html.parser.HTMLParser):
    """The tags, addresses, handlers and visible text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "poster", "action", "data", "xlink:href"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_results_costs_and_clips(finished: Path) -> None:
    began = time.process_time()
    page = page_of(finished)
    assert time.process_time() - began < 10
    assert len(page) < 15e6
    seen = Reader(page)
    for said in (
        "Do rewritten prompts show more of what people asked for?",
        "Yes. On mine, trained wins",
        "half-trained",
        "ceiling",
        "of the way from raw to canonical",
        "Distribution of overall",
        "mean reward of the best so far",
        "gained: ",
        "lost: ",
        "Gained most",
        "Gained least",
        "Changed most",
        "seen: ",
        "Nothing failed.",
        "Begun with",
        "prompt tokens",
        "# the recipe <as> given",
        '"kind": "evolve"',
    ):
        assert said in seen.text, said
    summary = json.loads((finished / "summary.json").read_text())
    row = next(r for r in summary["means"] if (r["system"], r["metric"]) == ("trained", "overall"))
    assert f"{row['mean']:.3f}{row['ci95'][0]:.3f} – {row['ci95'][1]:.3f}" in seen.text
    assert seen.tags.count("video") == QUERIES
    assert page.count('class="fact kept"') > 24
    assert '<span class="added">steady</span>' in page


def test_drawing_a_page_builds_no_component_and_changes_nothing_else(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contents() -> dict[Path, bytes]:
        ignored = {"report.html", "run.db-shm", "run.db-wal"}
        return {path: path.read_bytes() for path in finished.rglob("*") if path.is_file() and path.name not in ignored}

    def refuse(component: object) -> None:
        raise AssertionError(f"{component} was built")

    before = contents()
    monkeypatch.setattr(registry, "build", refuse)
    assert "seen: " in Reader(page_of(finished)).text
    assert contents() == before


def test_nothing_is_loaded_and_nothing_runs(finished: Path, hostile: Path) -> None:
    for place in (finished, hostile):
        seen = Reader(page_of(place))
        assert {"script", "iframe", "object", "link", "img", "form"}.isdisjoint(seen.tags)
        assert all(re.match(r"data:video/mp4;|#[\w-]+$", address) for address in seen.addresses)
        assert not seen.handlers


def test_hostile_texts_are_shown_as_text(hostile: Path) -> None:
    page = page_of(hostile)
    seen = Reader(page)
    for text in HOSTILE:
        assert text.strip() in seen.text
    assert "<style>body" not in page
    assert seen.tags.count("main") == 1


def test_kept_and_added_words_are_marked() -> None:
    text = marked("a Red ball rolling <b>", "A red ball rolls; <b>sharp light</b> & red")
    assert text == (
        'A <span class="kept">red ball rolls</span>; &lt;<span class="kept">b</span>&gt;'
        '<span class="added">sharp light</span>&lt;/<span class="kept">b</span>&gt; &amp; <span class="kept">red</span>'
    )


def test_failures_and_missing_clips_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "q.txt").write_text("a broken red ball\na blue box\na green star going left")
    monkeypatch.chdir(tmp_path)
    small_world.register(monkeypatch)
    recipe = small_world.recipe("q.txt", 3)
    summary = run(recipe, tmp_path / "run")
    failed = summary.failures["render"]
    with Run(tmp_path / "run") as opened:
        for path in (tmp_path / "run" / "clips").rglob("*.mkv"):
            path.write_bytes(path.read_bytes()[:99])
        page = Reader(write(opened, recipe, summary).read_text())
        assert f"Failed: {failed} × render (broken on purpose)" in page.text
        assert "no clip" in page.text
        with pytest.raises(RunError, match="no clips to compare"):
            gif.write(opened, recipe)


def test_the_clips_of_a_card_start_from_the_same_noise(finished: Path) -> None:
    with Run(finished, writable=False) as opened:
        stored = opened.records.evaluation("mine")
        query, other = list(stored["raw"])[:2]
        left, right = stored["raw"][query], stored["trained"][query]
        a, b, c = (found.full_clips[0].clip for found in (left, right, stored["raw"][other]))
        failed = ScoredClip(0, None, failure="render")

        def clips(lefts: list[ScoredClip], rights: list[ScoredClip]) -> list[str | None]:
            pair = [dataclasses.replace(left, clips=tuple(lefts)), dataclasses.replace(right, clips=tuple(rights))]
            return [clip and clip.id for clip in paired_clips(opened, pair)]

        assert clips([ScoredClip(0, a), ScoredClip(1, c)], [ScoredClip(0, b), ScoredClip(1, c)]) == [a, b]
        assert clips([failed, ScoredClip(1, a)], [ScoredClip(0, c), ScoredClip(1, b)]) == [a, b]
        assert clips([failed, ScoredClip(1, a)], [ScoredClip(0, b)]) == [None, b]
        assert clips([failed], [ScoredClip(0, "unknown")]) == [None, None]
        assert clips([failed], [failed]) == [None, None]


def test_prompts_that_were_not_rendered_are_counted_by_system(finished: Path) -> None:
    recipe = small_world.recipe("tiny-test", QUERIES)
    with Run(finished, writable=False) as opened:
        summary = summarise(recipe, opened)
        size = summary.benchmarks["mine"].model_copy(update={"not_rendered": {"raw": 3, "base": 1}})
        withheld = summary.model_copy(update={"benchmarks": {"mine": size}})
        seen = Reader(write(opened, recipe, withheld).read_text(encoding="utf-8"))
    assert "left out of comparisons of clips: 3 of raw, 1 of base." in seen.text


def test_a_run_that_has_not_begun_has_no_page(place: Path) -> None:
    import fakes

    nothing = Summary(recipe="fake", finished=False, systems=(), ceiling=None)
    with Run(place) as opened, pytest.raises(RunError, match="has no results yet"):
        write(opened, fakes.recipe(), nothing)
    assert not (place / "report.html").exists()


def test_a_run_without_an_evaluation_has_a_page_too(place: Path) -> None:
    import fakes

    summary = run(fakes.recipe(), place, until="evolve")
    with Run(place) as opened:
        seen = Reader(write(opened, fakes.recipe(), summary).read_text())
    assert "Not finished yet" in seen.text
    assert "Reward, round after round" in seen.text


def test_the_picture_moves_and_is_small(finished: Path) -> None:
    from PIL import Image

    with Run(finished) as opened:
        path = gif.write(opened, small_world.recipe("tiny-test", QUERIES))
    assert path.name == "before-after.gif"
    assert path.stat().st_size <= gif.LIMIT
    with Image.open(path) as image:
        assert image.n_frames == 9
        assert image.info["loop"] == 0
        assert 60 <= image.info["duration"] <= 130  # 9 frames at 8 a second
        frames = []
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(image.convert("RGB").tobytes())
    assert len(set(frames)) > 5


# In a browser

CHROMIUM = Path("/usr/bin/chromium")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SCREENS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if not CHROMIUM.exists():
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(CHROMIUM), args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def asked() -> list[str]:
    """Return the list of addresses that the pages of a test asked for, of their dialogs, and of their errors."""
    return []


@pytest.fixture(params=SCREENS)
def page(request: pytest.FixtureRequest, browser: Any, asked: list[str]) -> Iterator[Any]:
    context = browser.new_context(**SCREENS[request.param])
    context.set_default_timeout(100_000)
    opened = context.new_page()
    opened.on("request", lambda r: asked.append(r.url) if not r.url.startswith("data:") else None)
    opened.on("dialog", lambda dialog: (asked.append(f"dialog {dialog.message}"), dialog.dismiss()))
    opened.on("pageerror", lambda error: asked.append(str(error)))
    opened.on("console", lambda message: asked.append(message.text))
    opened.screen = request.param
    yield opened
    context.close()


FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
OVERLAPS = """() => [...document.querySelectorAll('.card, .tile, .side, h1, h2, p, video')].filter(element => {
    const box = element.getBoundingClientRect(), parent = element.parentElement.getBoundingClientRect();
    return box.right > parent.right + 1 || box.left < parent.left - 1;
}).map(element => element.outerHTML.slice(0, 80))"""
PLAYING = "v => !v.paused && v.currentTime > 0 && v.videoWidth > 0"


@pytest.mark.slow
def test_it_opens_quickly_and_plays(page: Any, asked: list[str], finished: Path) -> None:
    page_of(finished)
    address = (finished / "report.html").as_uri()
    processes = page.context.browser.new_browser_cdp_session()

    def busy() -> float:
        """Return the processor seconds of the browser, which other work on the machine does not change."""
        return sum(entry["cpuTime"] for entry in processes.send("SystemInfo.getProcessInfo")["processInfo"])

    began = busy()
    page.goto(address)
    assert busy() - began <= 2
    assert set(asked) == {address}
    assert page.evaluate(FITS)
    assert page.evaluate(OVERLAPS) == []
    luminance = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(luminance) < 60) == (page.screen == "dark")
    video = page.locator("video").first
    video.scroll_into_view_if_needed()
    page.wait_for_function(PLAYING, arg=video.element_handle(), timeout=10_000)
    assert page.screenshot(full_page=True, path=finished / f"{page.screen}.png")


@pytest.mark.slow
def test_hostile_texts_leave_the_layout_as_it_is(page: Any, asked: list[str], hostile: Path) -> None:
    page_of(hostile)
    address = (hostile / "report.html").as_uri()
    page.goto(address)
    assert set(asked) == {address}
    assert page.evaluate(FITS)
    assert page.evaluate(OVERLAPS) == []
    text = page.evaluate("document.body.textContent")
    assert all(line.strip() in text for line in HOSTILE)
    heights = page.evaluate("[...document.querySelectorAll('.card')].map(card => card.getBoundingClientRect().height)")
    assert max(heights) < 1400
    right_to_left = page.locator(".query", has_text="كرة").first
    assert right_to_left.evaluate("element => getComputedStyle(element).direction") == "rtl"


def test_a_run_is_about_its_last_student_as_it_is_used() -> None:
    recipe, _ = load_recipe("tiny_promptreel", ["systems.early={student='sft', attempts=2}"])
    evaluate = next(recipe.stages(EvaluateStage))
    for systems, final in (
        (["raw", "sft", "dpo-3", "checked"], "checked"),
        (["raw", "sft", "dpo-3", "early"], "dpo-3"),
        (["raw", "sft", "early"], "early"),
        (["raw", "canonical"], "canonical"),
    ):
        assert final_system(recipe, evaluate.model_copy(update={"systems": systems})) == final
