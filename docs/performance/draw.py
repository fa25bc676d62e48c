#!/usr/bin/env python3
"""Draws docs/performance/*.svg and the tables of docs/performance.md from docs/performance/*.json.

`make bench`, `make bench-near`, `make bench-serve` and `make bench-stale` write the results and this script draws them. With
`--check` it writes nothing, and fails if a file differs from what it would draw. Needs only the Python standard library.
"""

import json
import re
import sys
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.parent / "performance.md"
# By the name in the markers of the machine on which they were measured.
RESULTS = {
    "machine": FOLDER / "results.json",
    "machine of near": FOLDER / "near.json",
    "machine of serve": FOLDER / "serve.json",
    "machine of stale": FOLDER / "stale.json",
}

# File name of each plot, the beginning of its section's title, and which bars are the better ones.
PLOTS = {
    "hit": ("A hit in RAM", "shorter"),
    "threads": ("A hit of 100 bytes among 100,000 keys", "shorter"),
    "server": ("100 bytes on a server, 64 calls at once on one thread", "shorter"),
    "clear": ("Removing 10,000 of 1,000,000 values on a server", "shorter"),
    "serve": ("A hello component under", "longer"),
    "workers": ("A request by worker threads", "shorter"),
}

WIDTH, LABEL, BAR, GAP = 860, 330, 16, 6
LARDER, BARE = "#4c6ef5", "#868e96"
# The colours of rows that are not Larder's, by the beginning of their name: the same in every plot.
COLOURS = {
    "empty call": BARE,
    "the same bytes": BARE,
    "GET": BARE,
    "SET": BARE,
    "SCAN": BARE,
    "quick_cache": "#12b886",
    "moka": "#f59f00",
    "wasmtime": "#7950f2",
}
STYLE = """<style>
text { font: 12px system-ui, sans-serif; fill: #212529 } .title { font-weight: 600; font-size: 14px }
.quiet { fill: #868e96 } .paper { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #dee2e6 } .quiet { fill: #868e96 } .paper { fill: #16191d } }
</style>"""


def time(seconds):
    for unit, factor, digits in (("ns", 1e9, 0), ("µs", 1e6, 1), ("ms", 1e3, 2)):
        if seconds * factor < 1000 or unit == "ms":
            return f"{seconds * factor:,.{digits}f} {unit}"


def groups(section):
    """Groups the rows of a section by backend, which the results call `place`."""
    found = []
    for row in section["rows"]:
        if not found or row["place"] and row["place"] != found[-1][0]:
            found.append((row["place"], []))
        found[-1][1].append(row)
    return found


def colour(row):
    return next((colour for name, colour in COLOURS.items() if row["what"].startswith(name)), LARDER)


def bars(section, better):
    """Draws a section as bars whose length is the ratio to the first row of their group."""
    lines, y = [f'<text class="quiet" x="10" y="36">{better.capitalize()} bars are better; Larder is blue</text>'], 50
    longest = max(row["ratio"] for row in section["rows"])
    scale = (WIDTH - LABEL - 130) / longest
    for place, rows in groups(section):
        lines.append(f'<text class="quiet" x="10" y="{y + 12}">{escape(place)}</text>')
        for nth, row in enumerate(rows):
            if place or nth:
                y += BAR + GAP if nth or place else 0
            width = max(row["ratio"] * scale, 1)
            lines.append(f'<text x="{LABEL - 10}" y="{y + 12}" text-anchor="end">{escape(row["what"])}</text>')
            lines.append(f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour(row)}"/>')
            label = f'{row["ratio"]:.2f} ×, {row["label"] if "label" in row else time(row["seconds"])}'
            lines.append(f'<text x="{LABEL + width + 6:.1f}" y="{y + 12}">{label}</text>')
        y += BAR + GAP * 3
    title = f'<text class="title" x="10" y="18">{escape(section["title"])}</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" role="img">'
    # Of its own, because a picture does not know the page around it.
    paper = f'<rect class="paper" width="{WIDTH}" height="{y}" rx="6"/>'
    return "\n".join([head, STYLE, paper, title, *lines, "</svg>", ""])


def table(section):
    """Formats the rows of a section as a Markdown table."""
    lines = []
    if all("seconds" in row for row in section["rows"]):
        lines += ["| | | median | ratio |", "|---|---|---:|---:|"]
        for place, rows in groups(section):
            for nth, row in enumerate(rows):
                ratio = "1" if nth == 0 else f'{row["ratio"]:.2f}'
                lines.append(f'| {place if nth == 0 else ""} | {row["what"]} | {time(row["seconds"])} | {ratio} |')
    else:
        named = section.get("columns")
        columns = len(named) if named else max(len(row["numbers"]) for row in section["rows"])
        lines += ["| | |" + "".join(f" {name} |" for name in named or [""] * columns).replace("  |", " |")]
        lines += ["|---|---|" + "---:|" * columns]
        for row in section["rows"]:
            numbers = row["numbers"] + ([f'{row["ratio"]:.2f}'] if "ratio" in row else [])
            lines.append(f'| {row["place"]} | {row["what"]} | ' + " | ".join(numbers) + " |")
    return "\n".join(lines)


def drawn(runs, page):
    """Returns the text of every generated file, by path. `runs` are the contents of the results files."""
    files = {}
    sections = {section["title"]: section for run in runs.values() for section in run["results"]}
    for name, (begin, better) in PLOTS.items():
        section = next(section for title, section in sections.items() if title.startswith(begin))
        files[FOLDER / f"{name}.svg"] = bars(section, better)

    def replacement(match):
        name = match[1]
        if name in runs:
            run = runs[name]
            machine = run["machine"]
            text = (
                f'Measured on {run["date"]}: {machine["cores"]} cores of {machine["processor"]}, '
                f'{int(machine["memory"].split()[0]) / 2**20:.0f} GiB, {machine["system"]}; '
                f'{", ".join(run["versions"])}.'
            )
        else:
            titles = [title for title in sections if title.startswith(name)]
            if len(titles) != 1:
                sys.exit(f"{PAGE.name}: {len(titles)} results begin with `{name}`")
            text = table(sections.pop(titles[0]))
        return f"<!-- drawn: {name} -->\n\n{text}\n\n<!-- end -->"

    files[PAGE] = re.sub(r"<!-- drawn: (.*?) -->.*?<!-- end -->", replacement, page, flags=re.DOTALL)
    if sections:
        sys.exit(f"{PAGE.name} has no marker for {', '.join(map(repr, sections))}")
    return files


def main():
    files = drawn({name: json.loads(file.read_text()) for name, file in RESULTS.items()}, PAGE.read_text())
    stale = [file for file, text in files.items() if not file.exists() or file.read_text() != text]
    if sys.argv[1:] == ["--check"]:
        if stale:
            sys.exit(f"not drawn from the results: {', '.join(file.name for file in stale)}")
        return
    for file in stale:
        file.write_text(files[file])
        print(f"drawn: {file.name}")


if __name__ == "__main__":
    main()
