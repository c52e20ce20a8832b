"""Made-up result files for every placeholder of a manuscript, so that the build can be tested without the analyses."""

import csv
import json
import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure


def write_made_up_results(manuscript: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, dict] = {}
    for name in re.findall(r"\{\{(?!figure:|table:|ref:)([^{}:]+)", manuscript):
        stem, *keys = name.strip().split(".")
        place = numbers.setdefault(stem, {})
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = 12 if re.match(r"n_|most_", keys[-1]) else 0.1234
    for stem, values in numbers.items():
        (folder / f"{stem}.json").write_text(json.dumps(values))
    for stem, rest in re.findall(r"\{\{table:(\S+)([^{}]*)\}\}", manuscript):
        columns = re.findall(r"(\w+)=[^;\"]*", re.search(r'columns="([^"]*)"', rest).group(1))
        conditions = re.search(r'where="([^"]*)"', rest)
        where = dict(re.findall(r"(\w+)=([^;\s]+)", conditions.group(1))) if conditions else {}
        with (folder / f"{stem}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*columns, *(set(where) - set(columns))])
            writer.writeheader()
            writer.writerows(dict.fromkeys(columns, -0.1234 + row) | where for row in range(12))
    for stem in re.findall(r"\{\{figure:(\S+)", manuscript):
        with mpl.rc_context({"svg.hashsalt": "made up"}):
            figure = Figure(figsize=(4, 2))
            figure.add_subplot().plot([1, 2], [2, 1])
            figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})
