"""Reports of real tiny runs in a browser: nothing is loaded, names stay text, tables sort, light and dark, phones."""

import csv
import html
import json
import re
import shlex

import numpy as np
import pytest
import yaml
from PIL import Image

from swinft.cli import main
from tests.browser import chromium, opened
from tests.conftest import fit_in_process, make_competition, tiny_config, write_config

NAMES = [
    "<script>alert(1)</script>",
    "</style><b>bold</b>",
    "{{7*7}} {% raw %}",
    "$x^2$ & \"quotes\" 'single'",
    "שלום \u200f עולם",
    "🎉 party 👩‍🔬",
]
# Of lines such as `predicted: שלום 0.42`: whether the number stands where an English reader looks for it.
RIGHT_OF_NAME = """[...document.querySelectorAll('#worst figcaption bdi')].flatMap((line) => {
    const found = /^predicted: .*(0\\.\\d+)$/.exec(line.textContent);
    const names = [...line.querySelectorAll('bdi')];
    if (!found || !names.length) return [];
    const last = line.lastChild, range = document.createRange();
    range.setStart(last, last.textContent.lastIndexOf(found[1]));
    range.setEnd(last, last.textContent.length);
    const number = range.getBoundingClientRect();
    return names.map((name) => {
        const box = name.getBoundingClientRect();
        return number.left >= box.right - 1 || number.top > box.top + 4;
    });
})"""
# On how many lines each key of the config stands.
LINES = """[...document.querySelectorAll('#settings .text tr > :first-child')].map((cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell.querySelector('button') ?? cell);
    return range.getClientRects().length;
})"""
ODD = "<img src=x onerror=alert(2)> black"
RUN = "<i>run {{7*7}} 🎉"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run whose classes, ids, metadata and name could be taken for HTML, templates or formulas."""
    folder = tmp_path_factory.mktemp("hostile")
    competition = make_competition(folder / "data")  # its own, as an image is added
    files = [row.split(",")[0] for row in (competition / "train.csv").read_text().splitlines()[1:]]
    with (competition / "hostile_names.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "file", "label", "<u>place"])
        for place, name in enumerate(files):
            writer.writerow([f"<img src=x onerror=alert(2)>{place}", name, NAMES[place % 6], f"</td>{place % 2}"])
        writer.writerow([ODD, "odd", NAMES[0], "</td>0"])
    Image.new("RGB", (300, 30)).save(competition / "images" / "odd.jpg")
    changes = {
        "name": RUN,
        "data.train": "hostile_names.csv",
        "data.id": "name",
        "data.image": "images/{file}.jpg",
        "data.target": "label",
        "data.columns": {"categorical_features": ["<u>place"]},
        "data.test": None,
        "data.sample_submission": None,
        "trainer.max_epochs": 1,
    }
    fit_in_process(write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **changes)))
    return folder / "runs" / RUN


def test_a_report_is_one_file_that_works_by_mouse_and_keyboard_in_light_and_dark(tiny_run):
    with chromium() as browser, opened(browser, tiny_run / "report.html", color_scheme="light") as watched:
        page, background = watched.page, "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(background)
        assert page.locator("svg.replaced").count() == page.locator(".uplot canvas").count() > 4
        column = "[...document.querySelectorAll('#outputs tbody tr')].map((row) => row.cells[{}].textContent)"
        recalls = page.evaluate(column.format(4))
        page.locator("#outputs th button", has_text="recall").click()
        assert page.evaluate(column.format(4)) == sorted(recalls, key=float, reverse=True)
        assert page.locator("#outputs th[aria-sort=descending]").inner_text().startswith("recall")
        page.locator("#outputs th button", has_text="class").focus()
        page.keyboard.press("Enter")
        assert page.evaluate(column.format(0)) == ["blue", "green", "red"]
        page.keyboard.press("Enter")
        assert page.evaluate(column.format(0)) == ["red", "green", "blue"]
        assert set(page.evaluate(LINES)) == {1}
        page.locator("#theme").click()
        dark = page.evaluate(background)
        page.reload()
        assert page.evaluate(background) == dark != light
        watched.check()
        with opened(browser, tiny_run / "report.html", color_scheme="dark") as other:
            assert other.page.evaluate(background) == dark
        with opened(browser, tiny_run / "report.html", 360) as phone:
            phone.check()
        with opened(browser, tiny_run / "report.html", java_script_enabled=False) as plain:
            assert plain.page.locator("#training svg").first.is_visible()
            assert not plain.page.locator("#theme").is_visible()


def test_hostile_names_stay_text(hostile):
    with chromium() as browser, opened(browser, hostile / "report.html", 360) as watched:
        watched.check()
        page = watched.page
        assert page.locator("h1").inner_text() == RUN
        assert page.title() == RUN
        names = page.evaluate(
            "[...document.querySelectorAll('#outputs tbody tr')].map((row) => row.cells[0].textContent)"
        )
        assert sorted(names) == sorted(NAMES)
        assert page.locator("script:not([type])").count() == 1
        assert page.locator("main b:not(.card b):not(figcaption b), main i:not(.legend i), main u, style").count() == 1
        assert "<img src=x onerror=alert(2)>" in page.inner_text("#worst")
        assert "By <u>place" in page.inner_text("#parts")
        assert page.locator("#images figcaption b").first.inner_text() == ODD
        assert "25 train images, 0 of which cannot be used; 2 sizes, width × height: 36 × 40 (24), 300 × 30 (1)" in (
            page.inner_text("#images")
        )
        assert "49" not in page.inner_text("h1")
        right = page.evaluate(RIGHT_OF_NAME)
        assert right
        assert all(right)


def test_the_policy_allows_the_style_and_the_script_of_the_page_alone(tiny_run):
    """A script that was added to the file later does not run."""
    page = (tiny_run / "report.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "unsafe" not in policy
    assert html.unescape(policy).startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "onclick" not in page
    assert not re.search(r"<[a-z][^>]*\sstyle=", page)


def test_the_report_of_a_run_says_what_was_changed_and_how_it_was_computed(tiny_run):
    page = (tiny_run / "report.html").read_text()
    history = [json.loads(line) for line in (tiny_run / "fold_0" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["images_per_second"] > 0 and line["val_seconds"] > 0 for line in history)
    changed = page.partition("What differs from the defaults")[2].partition("</table>")[0]
    keys = re.findall(r"<tr><td>([\w.]+)</td>", changed)
    config = yaml.safe_load((tiny_run / "config.yaml").read_text())
    assert {"data.target", "model.backbone_args.embed_dim", "trainer.max_epochs", "model.optim.lr"} <= set(keys)
    assert config["model"]["optim"]["weight_decay"] is not None
    assert not {"model.optim.weight_decay", "data.loading.cache", "trainer.gradient_clip_val"} & set(keys)
    assert "torch" in page.partition("Versions and hardware")[2]
    command = html.unescape(re.search(r'<pre class="box" tabindex="0">(swinft fit .*?)</pre>', page)[1])
    assert shlex.split(command) == ["swinft", "fit", "--config", str(tiny_run / "config.yaml"), "--name", "NAME"]
    ends = re.findall(r"<td>([^<]+) to ([^<]+)</td></tr>", page.partition('id="parts"')[2].partition("</section>")[0])
    assert ends
    assert all(re.fullmatch(r"\d\.\d{4}", end) for pair in ends for end in pair)


OTHERS = {
    "numbers": {
        "data.target": ["brightness", "is_red"],
        "data.target_kind": "regression",
        "model.head": {"class_path": "swinft.RegressionHead"},
        "data.columns": {"numeric_features": ["is_green"]},
        "data.folds": {"num": 2, "group": "tags"},
        "data.test": None,  # its rows have no metadata
    },
    "labels": {
        "data.target": ["is_red", "is_green"],
        "data.target_kind": "multilabel",
        "model.head": {"class_path": "swinft.MultilabelHead"},
        "predict.views": ["identity", "hflip"],
    },
}
SECTIONS = {"numbers": ["numbers", "parts"], "labels": ["curves", "calibration", "separation", "test"]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_of_target_have_their_sections(kind, competition, tmp_path):
    config = tiny_config(competition, tmp_path / "runs", **{**OTHERS[kind], "trainer.max_epochs": 1})
    fit_in_process(write_config(tmp_path / "c.yaml", config))
    run = tmp_path / "runs" / "tiny"
    if kind == "labels":
        assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["report", str(run)]) == 0
    with chromium() as browser, opened(browser, run / "report.html", 360) as watched:
        watched.check()
        found = watched.page.evaluate("[...document.querySelectorAll('main section')].map((each) => each.id)")
        assert {"scores", "training", "outputs", "folds", "time", "settings", *SECTIONS[kind]} <= set(found)
    whole = tmp_path / "runs" / "E"
    words = ["--runs", str(tmp_path / "runs"), "--name", "E", "--method", "mean", "--bootstrap", "10"]
    second = tiny_config(competition, tmp_path / "runs", **{**OTHERS[kind], "trainer.max_epochs": 1, "name": "second"})
    fit_in_process(write_config(tmp_path / "second.yaml", second))
    assert main(["ensemble", str(run), str(tmp_path / "runs" / "second"), *words]) == 0
    with chromium() as browser, opened(browser, whole / "report.html", 360) as watched:
        watched.check()
        assert watched.page.locator("#members").count() == 1
        assert watched.page.locator("#training").count() == 0


@pytest.mark.slow
def test_masks_have_a_report(tmp_path):
    from tests.data.masks.salt import write_salt
    from tests.integration.test_segmentation import salt_config

    salt = write_salt(tmp_path / "salt", 24)
    config = salt_config(salt, tmp_path / "runs", **{"trainer.max_epochs": 1})
    fit_in_process(write_config(tmp_path / "c.yaml", config))
    with chromium() as browser, opened(browser, tmp_path / "runs" / "tiny" / "report.html", 360) as watched:
        watched.check()
        assert watched.page.locator("#masks img").count() == 16
    scores = (tmp_path / "runs" / "tiny" / "errors.csv").read_text()
    (salt / "images").rename(tmp_path / "hidden")  # masks are run lengths in the table, whose sizes the run knows
    assert main(["report", str(tmp_path / "runs" / "tiny")]) == 0
    page = (tmp_path / "runs" / "tiny" / "report.html").read_text()
    assert "image not found" in page.partition('id="masks"')[2]
    assert "could not be made" not in page
    assert (tmp_path / "runs" / "tiny" / "errors.csv").read_text() == scores


@pytest.mark.slow
def test_a_report_of_ten_thousand_rows_has_at_most_five_megabytes(tmp_path):
    rng, root = np.random.default_rng(0), tmp_path / "data"
    (root / "images").mkdir(parents=True)
    lines = ["id,y,z"]
    for row in range(10_000):
        value = rng.uniform(0, 255)
        pixels = np.clip(rng.normal(value, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{row}.jpg")
        lines.append(f"{row},{value:.2f},{row % 7}")
    (root / "train.csv").write_text("\n".join([*lines, ""]))
    changes = {
        "data.target": ["y", "z"],
        "data.target_kind": "regression",
        "data.test": None,
        "data.batch_size": 64,
        "model.head": {"class_path": "swinft.RegressionHead"},
        "trainer.max_epochs": 1,
    }
    fit_in_process(write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **changes)))
    assert (tmp_path / "runs" / "tiny" / "report.html").stat().st_size < 5e6
