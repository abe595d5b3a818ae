"""Pages opened in a real headless Chromium: what it complains of, and what a reader at three widths would not see well."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import tempfile
import threading
from html import unescape
from pathlib import Path

import pytest

WIDTHS = (400, 1_000, 1_600)  # pixels: a telephone, a tablet or half a screen, a desk
LEAST_CONTRAST = 4.5  # of text, WCAG 2.2, 1.4.3

# Opens the page in a frame of each width, waits for it, and looks at every element that holds text.
HARNESS = """<!doctype html><meta charset="utf-8"><body><pre id="found"></pre><script>
const channel = value => { value /= 255; return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4 };
const luminance = rgb => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
const numbers = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
function background(element) {
  for (let e = element; e; e = e.parentElement) {
    const rgba = numbers(e.ownerDocument.defaultView.getComputedStyle(e).backgroundColor);
    if (rgba.length === 3 || rgba[3] === 1) return rgba;
  }
  return [255, 255, 255];
}
function contrast(element) {
  const text = numbers(element.ownerDocument.defaultView.getComputedStyle(element).color);
  const [high, low] = [luminance(text), luminance(background(element))].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}
function look(page, view) {
  const all = [...page.querySelectorAll('body *')];
  const texts = all.filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  return {
    width: view.innerWidth,
    beyond: page.documentElement.scrollWidth - view.innerWidth,
    missing: [...page.images].filter(i => !i.complete || i.naturalWidth === 0).map(i => i.alt),
    unnamed: [...page.images].filter(i => !i.alt).length,
    scripts: page.scripts.length,
    handlers: all.filter(e => [...e.attributes].some(a => a.name.startsWith('on'))).length,
    foreign: all.filter(e => ['src', 'href'].some(n => /^(https?:)?\\/\\//.test(e.getAttribute(n) || ''))).length,
    faint: texts.map(e => [contrast(e), e.textContent.trim().slice(0, 40)]).filter(pair => pair[0] < LEAST),
    images: page.images.length,
    text: page.body.innerText,
  };
}
async function main() {
  const found = [];
  for (const width of WIDTHS) {
    const frame = document.createElement('iframe');
    frame.width = width; frame.height = 900; frame.src = 'page.html';
    const loaded = new Promise(done => frame.onload = done);
    document.body.append(frame);
    await loaded;
    await Promise.all([...frame.contentDocument.images].map(image => image.decode().catch(() => null)));
    found.push(look(frame.contentDocument, frame.contentWindow));
    frame.remove();
  }
  document.getElementById('found').textContent = 'FOUND' + JSON.stringify(found) + 'END';
}
main();
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Says nothing."""


def chromium() -> str:
    """The browser's path; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("a page is looked at in Chromium, which is not installed (Debian: apt-get install chromium)")
    return found


def seen(page: Path) -> tuple[list[dict], list[str]]:
    """What the browser shows of a page at each width, and the lines of its console."""
    browser = chromium()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(page, Path(folder) / "page.html")
        harness = HARNESS.replace("WIDTHS", json.dumps(WIDTHS)).replace("LEAST", str(LEAST_CONTRAST))
        (Path(folder) / "harness.html").write_text(harness, encoding="utf-8")
        handler = functools.partial(Quiet, directory=folder)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_address[1]}/harness.html"
            command = [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                f"--user-data-dir={folder}/profile", "--enable-logging=stderr", "--virtual-time-budget=60000",
                "--window-size=1700,1200", "--dump-dom", address,
            ]  # fmt: skip
            for _ in range(3):  # on a busy machine the browser's own clock may run out before the pages have loaded
                result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
                match = re.search(r"FOUND(\[.*\])END", result.stdout, re.S)
                if match:
                    break
            server.shutdown()
    assert match, f"the browser gave no answer: {result.stderr[-2000:]}"
    complaints = [line for line in result.stderr.splitlines() if "CONSOLE" in line and "favicon" not in line]
    return json.loads(unescape(match.group(1))), complaints


def check_page(page: Path) -> list[dict]:
    """Assert that nothing is missing, cut off, faint, scripted or fetched at any width; gives what was seen."""
    found, complaints = seen(page)
    assert complaints == []
    assert [view["width"] for view in found] == list(WIDTHS)
    for view in found:
        assert view["beyond"] <= 0, f"at {view['width']} pixels the page is {view['beyond']} too wide"
        assert view["missing"] == [] and view["unnamed"] == 0
        assert (view["scripts"], view["handlers"], view["foreign"]) == (0, 0, 0)
        assert view["faint"] == []
    return found
