"""Reads a page as strictly as its readers deserve: elements that nest, and nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = frozenset({"meta", "br", "img", "link"})
_LOADING = frozenset({"src", "href", "xlink:href", "data", "action", "poster", "srcset"})


class HtmlPage(HTMLParser):
    """The visible text and the table rows of a page; an element that does not nest fails."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        # Only places in the page itself are named; nothing is loaded.
        assert all(reference.startswith("#") for reference in self.references)
        assert not {name[1:] for name in self.references} - set(self.ids)
        assert "@import" not in text
        assert all(url.startswith("#") for url in re.findall(r"url\(\s*['\"]?([^)'\"]*)", text))
        assert "<script" not in text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in _LOADING:
                self.references.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if {"td", "th"} & set(self.open) and self.rows:
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())
