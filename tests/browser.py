"""Pages opened in a real headless Chromium: what it complains of, and what a reader at three widths would not see well."""

import functools
import http.server
import json
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

WIDTHS = (400, 1_000, 1_600)  # pixels: a telephone, a tablet or half a screen, a desk
LEAST_CONTRAST = 4.5  # of text, WCAG 2.2, 1.4.3

# Opens the page in a frame of each width, waits for it, and looks at every element that holds text.
HARNESS = """<!doctype html><meta charset="utf-8"><body><script>
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
  return found;
}
main().catch(error => ({error: String(error)})).then(found => fetch('found', {method: 'POST', body: JSON.stringify(found)}));
</script>"""


class Listener(http.server.ThreadingHTTPServer):
    """Serves a folder on this machine and keeps what the page in the browser sends back."""

    daemon_threads = True

    def __init__(self, folder: str):
        super().__init__(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
        self.answers: queue.Queue[bytes] = queue.Queue()


class Quiet(http.server.SimpleHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        self.server.answers.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Says nothing."""


def chromium() -> str:
    """The browser's path; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("a page is looked at in Chromium, which is not installed (Debian: apt-get install chromium)")
    return found


@contextmanager
def opened(browser: str, address: str, log: IO[bytes] | int = subprocess.DEVNULL) -> Iterator[None]:
    """The browser at an address, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:  # the browser may still write as it ends
        process = subprocess.Popen(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={profile}", "--enable-logging=stderr", "--window-size=1700,1200", address],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def seen(page: Path) -> tuple[list[dict], list[str]]:
    """What the browser shows of a page at each width, and the lines of its console."""
    browser = chromium()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(page, Path(folder) / "page.html")
        harness = HARNESS.replace("WIDTHS", json.dumps(WIDTHS)).replace("LEAST", str(LEAST_CONTRAST))
        (Path(folder) / "harness.html").write_text(harness, encoding="utf-8")
        said = Path(folder) / "said.txt"
        with Listener(folder) as server, open(said, "wb") as log:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            with opened(browser, f"http://127.0.0.1:{server.server_address[1]}/harness.html", log):
                try:
                    found = json.loads(server.answers.get(timeout=120))
                except queue.Empty:
                    found = {"error": "no answer within two minutes"}
            server.shutdown()
        lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
    assert isinstance(found, list), f"{found['error']}; the browser said: {lines[-20:]}"
    return found, [line for line in lines if "CONSOLE" in line and "favicon" not in line]


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
