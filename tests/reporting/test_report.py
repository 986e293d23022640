"""The page: everything of the contract drawn, nothing private, nothing claimed, and quiet in a browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pos_hf.cli import report as command
from pos_hf.cli.main import main
from pos_hf.errors import InputError
from pos_hf.reporting import write_examples, write_report

from .fake_run import NAMES, PALETTE, fake_run

FIGURES = [
    "Supervised loss",
    "Unsupervised loss",
    "mIoU during training, in %",
    "Gradient norms",
    "Weights of the update",
    "MEO gain",
    "Kept pixels",
    "Pseudo-labels on held-out labels",
    "Precision by class",
    "Coverage by class",
    "Do the gradients conflict?",
    "Does the update point against one?",
    "How long the gradients are",
    "Share of the unsupervised weight <small>paper's Fig. 3b</small>",
]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    runs = [fake_run(folder / "supervised", unlabeled=False), fake_run(folder / "pos", 1)]
    write_report(runs, folder / "report.html")
    return (folder / "report.html").read_text()


def test_every_figure_is_on_the_page(page) -> None:
    titles = re.findall(r"<figure><h3>(.*?)</h3>", page)
    assert [title.split(" · ")[0] for title in titles] == FIGURES
    assert len(re.findall(r"<figure><h3>.*?</h3><svg", page)) == len(FIGURES)


def test_pictures_of_predictions_mistakes_and_pseudo_labels_are_on_the_page(page) -> None:
    captions = re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="([^"]*)">', page)
    assert captions.count("shape_0: who is right") == 1
    assert sum(caption.endswith("wrong pixels") for caption in captions) == 4 + 4
    assert captions.count("image · truth") == 1
    assert [caption for caption in captions if caption.startswith("step")] == [
        f"step {step}" for step in range(50, 301, 50)
    ]
    assert "at step 150: pseudo-labels had become worse" in page


def test_the_page_needs_nothing_from_outside(page) -> None:
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "url(http" not in page and "<script" not in page
    assert len(page.encode()) < 5_000_000


def test_the_markup_is_balanced(page) -> None:
    class Balance(HTMLParser):
        open: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list) -> None:
            if tag not in ("meta", "link", "img"):
                self.open.append(tag)

        def handle_startendtag(self, tag: str, attrs: list) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Balance()
    parser.feed(page)
    assert parser.open == []


def test_figures_follow_the_colour_scheme(page) -> None:
    figures = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--run-2)" in figures and "var(--grid)" in figures
    assert set(re.findall(r"#[0-9a-f]{6}\b", figures)) <= {"#000000"}


def test_svg_ids_are_unique_on_the_page(page) -> None:
    clips = [
        set(re.findall(r'<clipPath id="(.*?)"', svg)) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    ]
    assert len(set().union(*clips)) == sum(map(len, clips))


def test_the_difference_comes_with_its_interval_and_its_limits(page) -> None:
    text = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert re.search(r"pos scores \+[\d.]+ points against supervised \(95 % interval", text)
    assert "one training with one seed" in text
    assert "The oracle was chosen by looking" in text


def test_a_difference_that_the_images_cannot_tell_is_said_to_be_none(make_run, tmp_path) -> None:
    write_report(
        [make_run(name, i, unlabeled=False) for i, name in enumerate("ab")], tmp_path / "report.html"
    )
    assert "do not tell the two models apart" in (tmp_path / "report.html").read_text()


def without_counts(run: Path) -> None:
    (run / "per_image.npz").unlink()


def with_other_labels(run: Path) -> None:
    with np.load(run / "per_image.npz") as stored:
        ids, areas = stored["ids"], stored["areas"].copy()
    areas[0, 2, 0] += 1
    np.savez(run / "per_image.npz", ids=ids, areas=areas)


def with_other_class_names(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["per_category_iou"] = {f"other {name}": iou for name, iou in metrics["per_category_iou"].items()}
    (run / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.parametrize("scored", [without_counts, with_other_labels, with_other_class_names])
def test_runs_not_scored_alike_are_not_compared(make_run, tmp_path, scored: Callable[[Path], None]) -> None:
    first, second = make_run("a", unlabeled=False), make_run("b", 1)
    scored(second)
    write_report([first, second], tmp_path / "report.html")
    text = " ".join(re.sub(r"<[^>]+>", "", (tmp_path / "report.html").read_text()).split())
    assert "so their scores do not compare" in text
    assert "b was not scored on the images, classes and labels of a." in text
    assert "points against" not in text and "in points of IoU" not in text


def test_scores_of_selection_images_are_named_so(make_run, tmp_path) -> None:
    run = make_run("a")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["protocol"]["role"] = "selection"
    (run / "metrics.json").write_text(json.dumps(metrics))
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "12 selection images" in page and "12 test images" not in page


def test_settings_that_differ_are_shown_and_nothing_private(page) -> None:
    assert "fixmatch" in page
    assert "max_steps" not in page  # equal in both
    assert "hf_secret" not in page and "/somewhere/private" not in page


def test_of_a_private_folder_only_the_name_is_shown(make_run, tmp_path) -> None:
    run = make_run("run", unlabeled=False)
    (run / "run.json").write_text('{"dataset": "/home/someone/secret/leaves"}')
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "leaves" in page and "someone" not in page


def test_a_class_of_iou_zero_is_not_an_absent_class(make_run, tmp_path) -> None:
    run = make_run("run", unlabeled=False)
    (run / "per_image.npz").unlink()
    (run / "metrics.json").write_text('{"mean_iou": 0.5, "per_category_iou": {"disc": 0.0, "ring": null}}')
    write_report([run], tmp_path / "report.html")
    cells = re.findall(
        r'<tr><th>(\w+)</th><td class="run-1">([^<]*)<?', (tmp_path / "report.html").read_text()
    )
    assert [(name, value.strip()) for name, value in cells] == [("disc", "0.0"), ("ring", "\N{EN DASH}")]


def test_a_log_alone_makes_a_page(make_run, tmp_path) -> None:
    run = make_run("run")
    for name in ("metrics.json", "per_image.npz", "run.json"):
        (run / name).unlink()
    shutil.rmtree(run / "examples")
    assert command.main([str(run)]) == 0
    assert "Supervised loss" in (run / "report.html").read_text()


def test_an_earlier_report_is_replaced_and_any_other_file_kept(make_run, tmp_path) -> None:
    run, out = make_run("run", unlabeled=False), tmp_path / "page.html"
    command.main([str(run), "--out", str(out)])
    command.main([str(run), "--out", str(out)])
    out.write_text("<p>mine</p>")
    with pytest.raises(InputError, match="no earlier report"):
        command.main([str(run), "--out", str(out)])
    assert out.read_text() == "<p>mine</p>"


def test_names_from_the_data_cannot_inject_markup(make_run, tmp_path) -> None:
    run = make_run("run", unlabeled=False)
    metrics = (run / "metrics.json").read_text().replace("cross", "<script>alert(1)</script>")
    (run / "metrics.json").write_text(metrics)
    write_report([run], tmp_path / "report.html")
    assert "<script>" not in (tmp_path / "report.html").read_text()


def test_names_from_the_data_are_drawn_as_they_are(make_run, tmp_path) -> None:
    """No formula, no second line, no byte that cannot be stored."""
    run = make_run("run $x_{\udcff")  # a byte that is no UTF-8
    log = (run / "trainer_state.json").read_text()
    for old, new in (("disc", "$_{"), ("ring", r"a\nb"), ("cross", r"caf\udce9")):  # as JSON writes them
        log = log.replace(old, new)
    (run / "trainer_state.json").write_text(log)
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    for name in ("$_{", r"a\nb", r"caf\udce9", r"run $x_{\udcff"):
        assert name in page, name


def test_a_picture_of_any_shape_has_at_least_a_pixel(make_run, tmp_path) -> None:
    run = make_run("run", unlabeled=False)
    row = {"id": None, "image": Image.new("RGB", (3000, 2)), "mask": Image.new("L", (3000, 2))}
    shutil.rmtree(run / "examples")
    write_examples(run / "examples", [row], [np.zeros((2, 3000), np.uint8)], NAMES, PALETTE)
    write_report([run], tmp_path / "report.html")
    assert 'alt="None: ground truth"' in (tmp_path / "report.html").read_text()


def test_a_page_that_cannot_be_where_it_shall_is_refused(make_run, tmp_path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        write_report([make_run("run", unlabeled=False)], tmp_path)


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize(("width", "is_dark"), [(390, False), (1200, True)])
def test_a_browser_shows_the_page_without_a_complaint(page, tmp_path, width, is_dark) -> None:
    picture = tmp_path / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += ["--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    flags += [f"--window-size={max(width, 500)},2000", f"--screenshot={picture}"]
    flags += ["--force-dark-mode"] * is_dark
    script = (
        "const root = document.documentElement;"
        "console.log('width', innerWidth, 'overflow', root.scrollWidth - root.clientWidth)"
    )
    (tmp_path / "report.html").write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    # a window is never narrower than 500 pixels, a frame is
    frame = (
        f'<body style="margin:0"><iframe src="report.html" style="border:0;width:{width}px;height:2000px">'
    )
    (tmp_path / "window.html").write_text(frame)
    done = subprocess.run(
        ["chromium", *flags, (tmp_path / "window.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(console) == 1, console
    assert f"width {width} overflow 0" in console[0]
    colours = np.asarray(Image.open(picture).convert("L").crop((0, 0, width, 2000)))
    assert (np.median(colours) < 128) == is_dark and colours.std() > 20
