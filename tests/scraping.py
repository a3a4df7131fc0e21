"""Reading metrics as Prometheus does: over HTTP, by its text format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scraped:
    """All samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self.samples: Series = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def labels(self, name: str) -> set[str]:
        """The names of the labels that a series of this name has."""
        return {label for (found, labels) in self.samples if found == name for label, _ in labels}

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels; 0 if there is none."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples.items() if found == name and wanted <= has)

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Such sums by one label."""
        wanted, sums = set(labels.items()), dict[str, float]()
        for (found, has), value in self.samples.items():
            if found == name and wanted <= has:
                key: Mapping[str, Any] = dict(has)
                sums[key[label]] = sums.get(key[label], 0) + value
        return sums


def scrape(address: str) -> Scraped:
    """What is told at an address, such as ``127.0.0.1:9464``."""
    answer = requests.get(f"http://{address}/metrics", timeout=30)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain")
    return Scraped(answer.text)
