#!/usr/bin/env python3
"""Draws docs/pictures/architecture.svg, get-or-set.svg and near.svg, and top.svg from the recorded screen in top.ansi.

With `--check` it writes nothing, and fails if a file differs from what it would draw. Each picture has a background of its
own, and colours for light and dark pages. Needs only the Python standard library.
"""

import re
import sys
from html import escape
from pathlib import Path

# Decision: docs/decisions/0101-pictures-are-drawn-by-scripts-and-bring-their-background.md
FOLDER = Path(__file__).resolve().parent
WIDTH = 860

STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #212529 }
.paper { fill: #ffffff; stroke: #dee2e6 } .name { font-weight: 600 } .quiet { fill: #6c757d } .code { font-family: monospace }
.part { font-weight: 600; fill: #ffffff } .on { fill: #ffffff }
.host { fill: #f1f3f5; stroke: #adb5bd } .box { fill: #ffffff; stroke: #adb5bd }
.plugin { fill: #6741d9 } .larder { fill: #3b5bdb } .server { fill: #c2255c } .first { fill: #0ca678 } .second { fill: #d9480f }
.line { fill: none; stroke: #868e96; stroke-width: 1.5 } .dash { stroke-dasharray: 4 4 } .head { fill: #868e96 }
.wait { stroke: #e64980; stroke-width: 6; stroke-linecap: round } .work { stroke: #f59f00; stroke-width: 6; stroke-linecap: round }
@media (prefers-color-scheme: dark) {
text { fill: #dee2e6 } .part, .on { fill: #ffffff } .quiet { fill: #adb5bd }
.paper { fill: #16191d; stroke: #343a40 } .host { fill: #212529; stroke: #495057 } .box { fill: #16191d; stroke: #495057 }
}
</style>"""


class Picture:
    """An SVG under construction. All positions are in pixels from the upper left corner."""

    def __init__(self, title, height):
        self.head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
            f'role="img" aria-labelledby="title">\n<title id="title">{escape(title)}</title>'
        )
        self.parts = [f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>']

    def text(self, x, y, text, kind="", anchor="start"):
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        style = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text{style} x="{x}" y="{y}"{place}>{escape(text)}</text>')

    def box(self, x, y, width, height, kind, *lines):
        """A box with its lines of text in the middle, the first one bold."""
        self.parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>')
        coloured = kind not in ("host", "box")
        for nth, line in enumerate(lines):
            style = ("part" if coloured else "name") if nth == 0 else ("on" if coloured else "quiet")
            self.text(x + width / 2, y + height / 2 + 5 + 18 * (nth - (len(lines) - 1) / 2), line, style, "middle")

    def arrow(self, *points, both=False, dashed=False):
        """A line along the points with a head at its end, and with `both` also at its start."""
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        self.parts.append(f'<path class="line{" dash" if dashed else ""}" d="{path}"/>')
        ends = [(points[-2], points[-1])] + ([(points[1], points[0])] if both else [])
        for (from_x, from_y), (x, y) in ends:
            length = ((x - from_x) ** 2 + (y - from_y) ** 2) ** 0.5
            along_x, along_y = (x - from_x) / length, (y - from_y) / length
            back_x, back_y = x - 8 * along_x, y - 8 * along_y
            corners = [(x, y), (back_x - 4 * along_y, back_y + 4 * along_x), (back_x + 4 * along_y, back_y - 4 * along_x)]
            head = " ".join(f"{corner_x:.1f},{corner_y:.1f}" for corner_x, corner_y in corners)
            self.parts.append(f'<polygon class="head" points="{head}"/>')

    def time(self, kind, y, start, end):
        """A thick line for what takes its time: `wait` or `work`."""
        self.parts.append(f'<path class="{kind}" d="M{start + 3} {y}H{end - 3}"/>')

    def dots(self, kind, y, *places):
        self.parts += [f'<circle class="{kind}" cx="{x}" cy="{y}" r="6"/>' for x in places]

    def vertical(self, x, top, bottom):
        self.parts.append(f'<path class="line dash" d="M{x} {top}V{bottom}"/>')

    def drawn(self):
        return "\n".join([self.head, STYLE, *self.parts, "</svg>", ""])


def architecture():
    picture = Picture("Plugins in host processes use caches in RAM or on a server that all hosts share", 440)
    hosts = [(16, "host process", "larder serve", "Python"), (438, "another one", "your program with larder-host", "JavaScript")]
    for left, title, program, language in hosts:
        picture.box(left, 16, 406, 306, "host")
        picture.text(left + 14, 40, title, "name")
        picture.text(left + 392, 40, program, "quiet code", "end")
        for nth, (name, kind) in enumerate([("checkout.wasm", "Rust"), ("pages.wasm", language)]):
            x = left + 14 + nth * 194
            picture.box(x, 54, 184, 50, "plugin", name, f"{kind}, in a sandbox")
            picture.arrow((x + 92, 104), (x + 92, 150))
        picture.text(left + 203, 132, "get, set, clear, get-or-set", "quiet", "middle")
        picture.box(left + 14, 150, 378, 50, "larder", "larder:cache", "grants, namespaces, limits, durations, metrics")
        picture.box(left + 14, 236, 118, 70, "box", "RAM cache", "of this process")
        picture.box(left + 142, 236, 118, 70, "box", "near tier", "copies in RAM")
        picture.box(left + 274, 236, 118, 70, "box", "server cache", "connections")
        picture.arrow((left + 73, 200), (left + 73, 236))
        picture.arrow((left + 201, 200), (left + 201, 236))
        picture.arrow((left + 333, 200), (left + 333, 236))
        picture.arrow((left + 260, 271), (left + 274, 271))
    picture.box(230, 366, 400, 58, "server", "Valkey or Redis", "values, and the lease of who computes a missing one")
    picture.arrow((349, 306), (349, 366), both=True)
    picture.arrow((771, 306), (771, 395), (630, 395), both=True)
    picture.text(16, 392, "larder.toml says which cache", "quiet")
    picture.text(16, 410, "is where, and who may use it", "quiet")
    return picture.drawn()


def get_or_set():
    picture = Picture("Get-or-set of one key: one caller of all processes computes, and the others get its value", 356)
    picture.text(16, 42, "the key on the server", "name")
    picture.box(190, 22, 110, 32, "box")
    picture.text(245, 43, "empty", "quiet", "middle")
    picture.box(300, 22, 260, 32, "second", "lease of process A")
    picture.box(560, 22, 284, 32, "first", "value")
    picture.vertical(300, 54, 262)
    picture.vertical(560, 54, 262)

    picture.text(16, 88, "process A", "name")
    picture.text(16, 114, "one caller")
    picture.text(292, 92, "claims the key", "quiet", "end")
    picture.time("work", 110, 300, 560)
    picture.text(430, 130, "computes; the host renews the lease", "quiet", "middle")
    picture.dots("first", 110, 572)
    picture.text(586, 114, "fills", "quiet")
    picture.text(16, 154, "its other callers")
    for y, start in ((150, 330), (164, 400)):
        picture.time("wait", y, start, 560)
        picture.dots("first", y, 572)
    picture.text(586, 160, "wake up in the process", "quiet")

    picture.text(16, 196, "process B", "name")
    picture.text(16, 222, "all callers")
    for y, start in ((208, 350), (222, 440)):
        picture.time("wait", y, start, 580)
        picture.dots("first", y, 592)
    picture.text(606, 219, "the server tells B of the change", "quiet")
    picture.text(16, 250, "later callers")
    picture.dots("first", 246, 660, 730, 800)

    picture.text(16, 288, "If A is killed, its lease lapses and one caller in B computes. A set or a clear by anyone ends A's right to", "quiet")
    picture.text(16, 306, "store, so that no old value comes back.", "quiet")
    picture.dots("first", 332, 24)
    picture.text(38, 336, "has the value")
    picture.time("work", 332, 190, 220)
    picture.text(230, 336, "computes")
    picture.time("wait", 332, 350, 380)
    picture.text(390, 336, "waits, at most as long as configured")
    return picture.drawn()


def near():
    picture = Picture("The near tier: a copy in the process's memory goes when the server announces a change", 340)
    picture.text(16, 42, "the key on the server", "name")
    picture.box(190, 22, 320, 32, "first", "value 1")
    picture.box(510, 22, 334, 32, "second", "value 2")
    picture.vertical(510, 54, 250)

    picture.text(16, 96, "process B")
    picture.dots("second", 92, 500)
    picture.arrow((500, 84), (500, 56))
    picture.text(490, 96, "sets value 2", "quiet", "end")

    picture.text(16, 148, "process A", "name")
    picture.text(16, 172, "its copy")
    picture.box(250, 156, 284, 26, "first", "value 1")
    picture.box(610, 156, 234, 26, "second", "value 2")
    picture.arrow((512, 54), (534, 154), dashed=True)
    picture.text(546, 116, "the server announces the change,", "quiet")
    picture.text(546, 134, "and the copy is dropped", "quiet")
    picture.text(16, 214, "its calls of get")
    picture.time("wait", 210, 214, 246)
    picture.dots("first", 210, 250, 300, 350, 400, 450, 500)
    picture.time("wait", 210, 572, 606)
    picture.dots("second", 210, 610, 660, 710, 760, 810)
    picture.text(230, 240, "reads", "quiet", "middle")
    picture.text(589, 240, "reads", "quiet", "middle")
    picture.text(400, 240, "from memory, no network", "quiet", "middle")
    picture.text(722, 240, "from memory", "quiet", "middle")

    picture.text(16, 276, "No copy is served whose connection has not answered a ping within max_staleness, so a lost message or a", "quiet")
    picture.text(16, 294, "broken network cannot keep an old value for longer.", "quiet")
    picture.dots("first", 318, 24)
    picture.text(38, 322, "gets value 1")
    picture.dots("second", 318, 154)
    picture.text(168, 322, "gets value 2")
    picture.time("wait", 318, 286, 316)
    picture.text(326, 322, "asks the server")
    return picture.drawn()


# The colours of a terminal by their number, as `top` uses them, for a dark background.
COLOURS = {31: "#ff8787", 32: "#69db7c", 33: "#ffd43b", 34: "#74c0fc", 35: "#da77f2", 36: "#66d9e8", 37: "#dee2e6", 90: "#868e96"}
LETTER, ROW = 8.4, 18
BLOCKS = "▁▂▃▄▅▆▇█"


def runs(line):
    """The parts of a recorded line that look alike: text, colour, and whether it is bold, dim or reversed."""
    colour, marks = None, set()
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if not part.startswith("\x1b"):
            if part:
                yield part, colour, frozenset(marks)
            continue
        codes = [int(code or 0) for code in part[2:-1].split(";")]
        while codes:
            code = codes.pop(0)
            if code == 0:
                colour, marks = None, set()
            elif code in (1, 2, 7):
                marks.add(code)
            elif code == 22:
                marks -= {1, 2}
            elif code == 27:
                marks.discard(7)
            elif code == 39:
                colour = None
            elif code in (38, 48) and codes[:1] == [5]:
                # One of 256 colours, of which the first 16 are the others.
                number = codes[1]
                codes = codes[2:]
                if code == 38 and number < 16:
                    colour = COLOURS.get(30 + number % 8)
            elif code in COLOURS or code - 60 in COLOURS:
                colour = COLOURS.get(code) or COLOURS[code - 60]


def screen(recorded, title):
    """Draws what a terminal showed, as `tmux capture-pane -e -p` prints it."""
    lines = recorded.rstrip("\n").split("\n")
    columns = max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in lines)
    width, height = round(columns * LETTER + 32), len(lines) * ROW + 56
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="title">\n<title id="title">{escape(title)}</title>',
        "<style>text { font: 14px monospace; white-space: pre } .bold { font-weight: 700 } .dim { opacity: 0.6 }</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#16191d"/>',
        *(f'<circle cx="{20 + 18 * nth}" cy="18" r="6" fill="{fill}"/>' for nth, fill in enumerate(("#ff6b6b", "#fcc419", "#51cf66"))),
    ]
    for nth, line in enumerate(lines):
        y, column = 52 + nth * ROW, 0
        for text, colour, marks in runs(line):
            x, fill = 16 + column * LETTER, colour or "#dee2e6"
            column += len(text)
            if 7 in marks:
                drawn.append(f'<rect x="{x:.1f}" y="{y - 14}" width="{len(text) * LETTER:.1f}" height="{ROW}" fill="{fill}"/>')
                fill = "#16191d"
            # Bars and frames are drawn, because letters of most fonts leave gaps between the rows.
            for part in re.findall(rf"[{BLOCKS}]+|│+|[^{BLOCKS}│]+", text):
                if part[0] in BLOCKS:
                    heights = [(BLOCKS.index(letter) + 1) / 8 * ROW for letter in part]
                    bars = [
                        f"M{x + nth * LETTER:.1f} {y + 4}v{-height:.1f}h{LETTER}v{height:.1f}z" for nth, height in enumerate(heights)
                    ]
                    drawn.append(f'<path d="{"".join(bars)}" fill="{fill}"/>')
                elif part[0] == "│":
                    edges = [f"M{x + (nth + 0.5) * LETTER:.1f} {y - 14}v{ROW}" for nth in range(len(part))]
                    drawn.append(f'<path d="{"".join(edges)}" stroke="{fill}"/>')
                elif part.strip():
                    # The length is said, because the letters of the reader's font may be wider.
                    style = " ".join(name for mark, name in ((1, "bold"), (2, "dim")) if mark in marks)
                    style = f' class="{style}"' if style else ""
                    length = f' textLength="{len(part) * LETTER:.1f}" lengthAdjust="spacingAndGlyphs"'
                    drawn.append(f'<text{style} x="{x:.1f}" y="{y}"{length} fill="{fill}">{escape(part)}</text>')
                x += len(part) * LETTER
    return "\n".join([*drawn, "</svg>", ""])


def main():
    pictures = {"architecture": architecture(), "get-or-set": get_or_set(), "near": near()}
    recorded = (FOLDER / "top.ansi").read_text(encoding="utf-8")
    pictures["top"] = screen(recorded, "larder top: the caches, plugins and requests of a running host")
    files = {FOLDER / f"{name}.svg": text for name, text in pictures.items()}
    stale = [file for file, text in files.items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    if sys.argv[1:] == ["--check"]:
        if stale:
            sys.exit(f"not drawn by docs/pictures/draw.py: {', '.join(file.name for file in stale)}")
        return
    for file in stale:
        file.write_text(files[file], encoding="utf-8")
        print(f"drawn: {file.name}")


if __name__ == "__main__":
    main()
