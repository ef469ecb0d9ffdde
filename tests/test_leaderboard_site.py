"""The site in a real browser: sort, filter, open a transcript, nothing asked of the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from submissions import ALONE, make_run, make_submission

from erl_envs.leaderboard import __main__ as cli
from erl_envs.leaderboard.submit import submit

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")

webdriver: Any = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()), reason="no chromium with chromium-driver"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_submission(home)
    make_submission(home, "sokoban", split="hard", samples=1)
    run = make_run(home / "runs" / "one", ("frozenlake",))
    submit(run, "frozenlake", replace(ALONE, name="alpha"), home / "submissions")
    other = make_run(home / "runs" / "other", ("frozenlake",), seed=3)
    submit(other, "frozenlake", replace(ALONE, name="zeta"), home / "submissions")
    assert cli.main(["build", "--home", str(home), "--site", str(home / "site")]) == 0
    return home / "site"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, site: Path) -> Iterator[Any]:
    browser.get((site / "index.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []
    asked = [entry["message"] for entry in browser.get_log("performance")]
    assert not [m for m in asked if "requestWillBeSent" in m and '"url":"http' in m]


def names(page: Any, track: str) -> list[str]:
    rows = page.find_elements(By.CSS_SELECTOR, f"section[aria-labelledby='{track}'] tbody tr")
    return [row.get_attribute("data-name") for row in rows if row.is_displayed()]


ONE = "frozenlake-small-test-hidden-outcome-1"


def test_a_table_is_sorted_by_a_click_and_by_a_key(page: Any) -> None:
    best_first = names(page, ONE)
    by_score = page.find_element(By.CSS_SELECTOR, f"[aria-labelledby='{ONE}'] [data-sort=score]")
    assert by_score.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    by_score.click()
    assert names(page, ONE) == best_first[::-1]
    by_name = page.find_element(By.CSS_SELECTOR, f"[aria-labelledby='{ONE}'] [data-sort=name]")
    by_name.send_keys(Keys.ENTER)
    assert names(page, ONE) == ["alpha", "zeta"]
    by_name.send_keys(Keys.SPACE)
    assert names(page, ONE) == ["zeta", "alpha"]
    assert by_name.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"


def test_entries_are_filtered(page: Any) -> None:
    count = page.find_element(By.ID, "count")
    assert count.text == "4 entries on 13 tracks"
    page.find_element(By.ID, "search").send_keys("ZETA")
    assert count.text == "1 entry on 1 track" and names(page, ONE) == ["zeta"]
    page.find_element(By.ID, "search").clear()
    page.find_element(By.ID, "search").send_keys(Keys.BACKSPACE)
    Select(page.find_element(By.ID, "env")).select_by_visible_text("sokoban")
    Select(page.find_element(By.ID, "split")).select_by_visible_text("hard")
    assert count.text == "1 entry on 1 track"


def test_every_chart_has_its_lines(page: Any) -> None:
    for strip in page.find_elements(By.CSS_SELECTOR, "tbody .strip svg"):
        assert len(strip.find_elements(By.CSS_SELECTOR, ".reference")) == 2
        told = strip.get_attribute("aria-label")
        assert "interval" in told and "random" in told and "oracle" in told


def test_a_transcript_opens_with_its_reflection(page: Any) -> None:
    track = "frozenlake-small-test-hidden-transitions-2"
    page.find_element(By.CSS_SELECTOR, f"[aria-labelledby='{track}'] tbody a").click()
    WebDriverWait(page, 20).until(lambda p: p.find_elements(By.CSS_SELECTOR, "#list a"))
    Select(page.find_element(By.ID, "result")).select_by_value("failed")
    WebDriverWait(page, 20).until(lambda p: p.find_elements(By.CSS_SELECTOR, ".reflection"))
    episode = page.find_element(By.ID, "episode")
    assert len(episode.find_elements(By.CSS_SELECTOR, ".attempt")) == 2
    assert episode.find_elements(By.CSS_SELECTOR, ".board td")
    page.find_element(By.PARTIAL_LINK_TEXT, "All leaderboards").click()
    assert page.title == "Leaderboards"


@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_fits_its_window(page: Any, width: int) -> None:
    page.set_window_size(width, 900)
    page.refresh()
    wide = page.execute_script("return document.documentElement.scrollWidth > innerWidth")
    assert not wide
