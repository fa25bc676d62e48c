#!/usr/bin/env python3
"""Reads the book of `make book` in a real browser, as `make book-check` does: `browse-book.py target/book`.

Every page must load without an error in the console and without a request to another machine, show its pictures large
enough to be read, and fit a screen of 390 pixels without scrolling sideways as a whole. Every link within the book must lead
to a file and a heading that exist, and the search must find. With `--screenshots FOLDER` it also takes pictures of some
pages, for people to look at.

Needs Chromium, and nothing else but the Python standard library. Where there is no Chromium it says so, and with `CI=true` it
fails.
"""

import argparse
import base64
import functools
import http.server
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

# Decision: docs/decisions/0102-the-book-is-tested-in-chromium-without-a-driver.md
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
# Far longer than any page takes, so that a busy machine fails nothing.
DEADLINE = 60
DESKTOP = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
# Pages of which screenshots are worth a look: with pictures, wide tables, long lines of code.
SHOWN = ["index.html", "leases.html", "near.html", "metrics.html", "configuration.html", "performance.html"]


class Browser:
    """A headless Chromium with one tab, which is told what to do over a pipe (the Chrome DevTools Protocol)."""

    def __init__(self, program, folder):
        to_browser, self.out = os.pipe()
        self.inward, from_browser = os.pipe()
        flags = [
            "--headless", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
            # Names of other machines do not resolve, so that a page which needs one fails here too.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]  # fmt: skip
        # The sandbox of Chromium does not run as root, as in a container.
        flags += ["--no-sandbox"] if os.getuid() == 0 else []
        # Chromium reads commands from descriptor 3 and writes to 4.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["sh", "-c", script, "sh", program, *flags], pass_fds=[to_browser, from_browser],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self.rest, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def messages(self):
        """The messages that have arrived. Waits a moment if there are none."""
        if not select.select([self.inward], [], [], 1)[0]:
            return []
        data = os.read(self.inward, 1 << 20)
        if not data:
            sys.exit(f"the browser has ended with {self.process.wait()}")
        *messages, self.rest = (self.rest + data).split(b"\0")
        return [json.loads(message) for message in messages]

    def until(self, what, found):
        """Reads messages until `found` returns something for one of them."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            for message in self.messages():
                if "method" in message:
                    self.events.append(message)
                if (value := found(message)) is not None:
                    return value
        sys.exit(f"timed out after {DEADLINE} s: {what}")

    def call(self, method, **parameters):
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        answer = self.until(method, lambda message: message if message.get("id") == number else None)
        if "error" in answer:
            sys.exit(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, url):
        """Opens a page, and returns the messages up to its load."""
        self.events = []
        self.call("Page.navigate", url=url)
        if not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.until(url, lambda message: True if message.get("method") == "Page.loadEventFired" else None)
        # What scripts of the page do at its load happens before this answer.
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))")
        return self.events

    def evaluate(self, expression):
        """The value of a JavaScript expression, awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            sys.exit(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, what, expression):
        """Waits until an expression is true."""
        deadline = time.monotonic() + DEADLINE
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                sys.exit(f"timed out after {DEADLINE} s: {what}")
            time.sleep(0.02)

    def size(self, size):
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, scheme):
        """Says that the reader's system is `light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, letter):
        self.call("Input.dispatchKeyEvent", type="keyDown", key=letter, text=letter)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        """Ends the browser, with the processes that it has started."""
        self.session = None
        os.write(self.out, b'{"id": 0, "method": "Browser.close"}\0')
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def complaints(events, base):
    """What went wrong while a page loaded."""
    for event in events:
        method, event = event["method"], event["params"]
        if method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            yield f"an exception: {details.get('exception', details).get('description', details)}"
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "assert"):
            yield f"on the console: {[part.get('value', part.get('description')) for part in event['args']]}"
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            yield f"in the log: {event['entry']['text']} {event['entry'].get('url', '')}"
        elif method == "Network.requestWillBeSent":
            url = event["request"]["url"]
            if not url.startswith((base, "data:", "blob:")):
                yield f"asks for {url}"
        elif method == "Network.responseReceived" and event["response"]["status"] >= 400:
            yield f"{event['response']['url']} is {event['response']['status']}"


# What a page has: links, headings, pictures that do not show, and parts that do not fit and have no scroll bar of their own.
READ = """({
    links: [...document.querySelectorAll('a[href]')].map(link => link.href),
    ids: [...document.querySelectorAll('[id]')].map(part => part.id),
    pictures: [...document.images].length,
    broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src),
    scrolls: Math.max(document.documentElement.scrollWidth, window.innerWidth) - SCREEN,
    small: [...document.querySelectorAll('.checkbox-label > img')].filter(image => image.width < 600).map(image => image.src),
    wide: [...document.querySelectorAll('main *')]
        .filter(part => part.getBoundingClientRect().right > SCREEN + 1 && !part.parentElement.closest(SCROLLING))
        .filter(part => !part.matches('.table-wrapper') && part.getClientRects().length)
        .map(part => part.outerHTML.slice(0, 120)).slice(0, 3),
})""".replace("SCROLLING", "'pre, .table-wrapper, p:has(> .checkbox-label)'")

# As a reader: the key that opens the search, the words, and the first result.
SEARCH_RESULTS = "document.querySelectorAll('#mdbook-searchresults a, #searchresults a')"
SEARCH_BAR = "document.querySelector('#mdbook-searchbar, #searchbar')"


def search(browser, base, words, page):
    """Searches for words, and returns what is wrong."""
    browser.open(f"{base}/docs/index.html")
    browser.press("s")
    browser.wait("the search opens", f"document.activeElement === {SEARCH_BAR}")
    for letter in words:
        browser.press(letter)
    browser.wait(f"the search for `{words}` finds something", f"{SEARCH_RESULTS}.length > 0")
    found = browser.evaluate(f"[...{SEARCH_RESULTS}].map(link => link.href)")
    if not any(urllib.parse.urlsplit(link).path == f"/docs/{page}" for link in found):
        yield f"the search for `{words}` does not find {page}: {found}"
    browser.open(found[0])
    if not browser.evaluate("document.querySelectorAll('mark').length"):
        yield f"the search for `{words}` leads to {found[0]}, which does not show the words"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def check(browser, base, book, screenshots):
    """Returns what is wrong with the book, and what was looked at."""
    problems, headings, links, pictures = [], {}, {}, 0
    summary = [path.name for path in sorted((book / "docs").glob("*.html"))]
    pages = [page for page in summary if page not in ("404.html", "print.html", "toc.html")]
    for page in pages:
        url = f"{base}/docs/{page}"
        for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
            browser.size(size)
            events = browser.open(url)
            problems += [f"{page} ({name}): {complaint}" for complaint in complaints(events, base)]
            read = browser.evaluate(READ.replace("SCREEN", str(size["width"])))
            problems += [f"{page} ({name}): {image} does not show" for image in read["broken"]]
            if read["scrolls"] > 0:
                problems.append(f"{page} ({name}): is {read['scrolls']} pixels wider than the screen")
            problems += [f"{page} ({name}): does not fit: {part}" for part in read["wide"]]
            # The letters of a picture that is smaller cannot be read.
            problems += [f"{page} ({name}): {image} is less than 600 pixels wide" for image in read["small"]]
            if screenshots and page in SHOWN:
                browser.screenshot(screenshots / f"{page.removesuffix('.html')}-{name}.png")
                if name == "desktop":
                    browser.prefer("dark")
                    browser.open(url)
                    browser.screenshot(screenshots / f"{page.removesuffix('.html')}-dark.png")
                    browser.prefer("light")
        headings[f"/docs/{page}"] = set(read["ids"])
        pictures += read["pictures"]
        for link in read["links"]:
            links.setdefault(link, page)
    inside = 0
    for link, page in links.items():
        if not link.startswith(base):
            continue
        inside += 1
        path, fragment = map(urllib.parse.unquote, (urllib.parse.urlsplit(link).path, urllib.parse.urlsplit(link).fragment))
        if not (book / path.lstrip("/")).exists():
            problems.append(f"{page}: links to {path}, which is not there")
        elif fragment and path in headings and fragment not in headings[path]:
            problems.append(f"{page}: links to {path}#{fragment}, which is not there")
    browser.size(DESKTOP)
    for words, page in (("lease", "leases.html"), ("max_staleness", "near.html"), ("Sentinel", "servers.html")):
        problems += search(browser, base, words, page)
    return problems, f"{len(pages)} pages, {pictures} pictures, {inside} links within the book"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("book", type=pathlib.Path)
    arguments.add_argument("--screenshots", type=pathlib.Path)
    arguments = arguments.parse_args()
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not program:
        print("larder: Chromium is not installed, so the book is not looked at", file=sys.stderr)
        sys.exit(os.environ.get("CI") == "true")
    if not (arguments.book / "docs/index.html").exists():
        sys.exit(f"{arguments.book} has no book: `make book` builds it")
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    handler = functools.partial(Quiet, directory=arguments.book)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    # Processes of the browser may still write there when it has ended.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(program, folder)
        try:
            problems, seen = check(browser, base, arguments.book, arguments.screenshots)
        finally:
            browser.close()
    if problems:
        sys.exit("\n".join(["the book has problems:", *problems]))
    print(f"larder: the book is as it should be: {seen}")


main()
