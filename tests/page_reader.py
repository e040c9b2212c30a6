"""HTML as a browser reads it, for tests of pages."""

from __future__ import annotations

from html.parser import HTMLParser

MAY_BE_EMPTY = {"meta", "img", "br", "th", "td", "tr"}


class ReadPage(HTMLParser):
    """A page as a browser reads it: its tags with their attributes, and its text. Raises for a tag left open."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in MAY_BE_EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in MAY_BE_EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value or "" for _, attributes in self.tags for name, value in attributes.items() if name == attribute]
