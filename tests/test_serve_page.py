"""The page of the service in headless Chromium."""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inceptionnet import Classifier

from .conftest import Page
from .serving import CLASSES, NAME, SIZE_PX, Gate, Running, png, running, small_classifier, until


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return small_classifier()


@pytest.fixture(scope="module")
def here(classifier: Classifier) -> Iterator[Running]:
    labels = small_classifier(("a", "b", "c", "d"), "sigmoid", seed=1)
    with running(classifier, labels, limits={"image_bytes": 50_000}) as found:
        yield found


def tab(browser: Any, here: Running, path: str = "/", **options: Any) -> tuple[Any, list[str]]:
    """The page in a tab; and what the console says, and what it asks others for."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(60_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    own = (here.url, "data:", f"blob:{here.url}")
    page.on("request", lambda request: request.url.startswith(own) or said.append(request.url))
    page.goto(here.url + path)
    return page, said


def ready(browser: Any, here: Running, **options: Any) -> tuple[Any, list[str]]:
    page, said = tab(browser, here, **options)
    page.wait_for_selector("#network:not(:empty)")
    return page, said


def file(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": data}


DROP = """([name, coded, kind]) => {
    const bytes = Uint8Array.from(atob(coded), (c) => c.charCodeAt(0));
    const held = new DataTransfer();
    held.items.add(new File([bytes], name, {type: "image/png"}));
    const event = kind === "drop" ? new DragEvent("drop", {dataTransfer: held, bubbles: true, cancelable: true})
        : new ClipboardEvent("paste", {clipboardData: held, bubbles: true});
    document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_that_is_dropped_or_pasted(browser: Any, here: Running, classifier: Classifier, kind: str) -> None:
    page, said = ready(browser, here)
    page.evaluate(DROP, ["a.png", base64.b64encode(png(1)).decode(), kind])
    page.wait_for_selector("#bars li")
    texts = page.locator("#bars li").all_inner_texts()
    expected = [f"{name}\n{100 * p:.1f} %" for name, p in classifier.predict(png(1)).top]
    assert [text.replace("\n\n", "\n").strip() for text in texts] == expected
    widths = page.eval_on_selector_all(
        "#bars i", "bars => bars.map(bar => Number(bar.style.getPropertyValue('--share')))"
    )
    assert widths == pytest.approx([p for _, p in classifier.predict(png(1)).top], abs=1e-5)
    page.check("#heat")
    page.wait_for_selector("#overlay:not([hidden])")
    assert page.eval_on_selector("#map", "image => image.decode().then(() => image.naturalWidth)") == SIZE_PX
    assert said == []


def test_several_images_as_a_table_and_as_csv(
    browser: Any, here: Running, classifier: Classifier, tmp_path: Path
) -> None:
    page, said = ready(browser, here)
    files = [
        file('=a, "1".png', png(1)),
        file("b.png", png(2)),
        file("bad.png", b"bad"),
        file("large.png", bytes(50_001)),
    ]
    page.set_input_files("#files", files)
    page.wait_for_selector("#rows tr:nth-child(4) .warning")
    page.wait_for_selector("#status:empty", state="attached")
    cells = page.locator("#rows tr").all_inner_texts()
    assert "is not an image in a known format" in cells[2] and "more than the limit of 50000" in cells[3]
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "found.csv")
    with open(tmp_path / "found.csv", newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["file"] for row in rows] == ['=a, "1".png', "b.png", "bad.png", "large.png"]
    for row, data in zip(rows[:2], (png(1), png(2)), strict=True):
        top = classifier.predict(data).top
        assert [row[f"class_{i + 1}"] for i in range(3)] == [name for name, _ in top]
        assert [float(row[f"probability_{i + 1}"]) for i in range(3)] == pytest.approx([p for _, p in top], abs=1e-5)
    assert "known format" in rows[2]["error"] and not rows[2]["class_1"]
    page.click("#rows tr:nth-child(2) button")
    assert page.inner_text("#name") == "b.png"
    page.click("#clear")
    assert page.is_hidden("#detail") and page.is_hidden("#several") and page.is_hidden("#save")
    assert said == []


def test_another_model_and_its_card(browser: Any, here: Running) -> None:
    page, _ = ready(browser, here)
    page.set_input_files("#files", file("a.png", png(1)))
    page.wait_for_selector("#bars li")
    assert page.locator("#bars li b").all_inner_texts()[0] in CLASSES
    page.select_option("#model", f"{NAME}-1")
    page.wait_for_selector("#bars li:nth-child(4)")
    assert set(page.locator("#bars li b").all_inner_texts()) == set("abcd")
    assert "threshold 0.5" in page.inner_text("#note")
    page.click("summary")
    assert f"{NAME}-1" in page.inner_text("#facts") and "sigmoid" in page.inner_text("#facts")


def test_errors_are_shown(browser: Any, here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    page, said = ready(browser, here)
    page.set_input_files("#files", file("bad.png", b"bad"))
    page.wait_for_selector("#bars .warning")
    assert "is not an image in a known format" in page.inner_text("#bars") and page.is_hidden("#image")
    monkeypatch.setattr("inceptionnet.serve.app.read_request", None)  # whatever fails
    page.set_input_files("#files", file("a.png", png(1)))
    page.wait_for_selector("#problem:not(:empty)")
    assert page.inner_text("#problem") == "the service has failed; see its log"
    assert all("status of" in line for line in said)


def test_a_busy_service_is_asked_again(browser: Any, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(classifier, limits={"queue": 1}) as here:
        gate = Gate(here, monkeypatch)
        page, _ = ready(browser, here)
        with here.service.places(here.service.get(), 1):
            page.set_input_files("#files", file("a.png", png(1)))
            page.wait_for_selector("text=The service is busy")
        gate.open()
        page.wait_for_selector("#bars li")
        page.context.close()


def test_a_key_is_asked_for(browser: Any, classifier: Classifier) -> None:
    with running(classifier, api_key="a-key-of-some-length") as here:
        page, _ = tab(browser, here)
        page.wait_for_selector("#locked:not([hidden])")
        assert "expected the API key" in page.inner_text("#problem")
        page.fill("#key", "a-key-of-some-length")
        page.keyboard.press("Enter")
        page.wait_for_selector("#network:not(:empty)")
        assert page.inner_text("#problem") == ""
        page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_and_schemes(browser: Any, here: Running, scheme: str) -> None:
    page, said = ready(browser, here, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    files = [file("a-name-that-is-rather-long-for-a-phone.png", png(1)), file("b.png", png(2))]
    page.set_input_files("#files", files)
    page.wait_for_selector("#rows tr:nth-child(2) td:nth-child(3):not(:empty)")
    assert page.evaluate("() => document.documentElement.scrollWidth") == 360
    assert page.eval_on_selector("#several .scroll", "box => box.scrollWidth <= box.clientWidth")
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    assert said == []


def test_keyboard(browser: Any, here: Running) -> None:
    page, _ = ready(browser, here)
    page.set_input_files("#files", [file("a.png", png(1)), file("b.png", png(2))])
    page.wait_for_selector("#rows tr:nth-child(2) td:nth-child(3):not(:empty)")
    focused = []
    page.focus("#model")
    for _ in range(12):
        focused.append(page.evaluate("() => document.activeElement.id || document.activeElement.textContent"))
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.textContent") == "b.png":
            page.keyboard.press("Enter")
            break
    assert page.inner_text("#name") == "b.png"
    assert [name for name in ("model", "heat", "files", "clear", "save") if name not in focused] == []


def test_the_page_of_the_api(browser: Any, here: Running) -> None:
    page, said = tab(browser, here, "/docs")
    page.wait_for_selector("details")
    documented = here.client.get("/openapi.json").json()["paths"]
    until(lambda: page.locator("details").count() == sum(map(len, documented.values())))
    assert f"{here.url}/predict" in page.inner_text("#example")
    assert said == []


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_only_from_the_service(here: Running, path: str) -> None:
    page = Page(here.client.get(path).text)
    for load in page.loads:
        where = load.partition("=")[2]
        assert where.startswith("/") and here.client.get(where).status_code == 200, load
    assert len(page.ids) == len(set(page.ids))
