"""Tables of words: escaped, with code and links, and in Markdown."""

from __future__ import annotations

import pytest

from cpm_lib.text_table import TextTable

TABLE = TextTable(
    ["Name", "What <it> says"],
    [["one", "a < b & `model.fuse` in [Chapter 3](03_cmm.ipynb)\nand [words](words.md#gamma), a | b"]],
    "`code` here",
)


def test_html() -> None:
    text = TABLE._repr_html_()
    assert '<th scope="col">What &lt;it&gt; says</th>' in text
    assert '<th scope="row">one</th><td data-head="What &lt;it&gt; says">' in text
    assert "a &lt; b &amp; <code>model.<wbr>fuse</code>" in text
    assert '<a href="03_cmm.html">Chapter 3</a></span><span class="line">and <a href="words.html#gamma">' in text
    assert "<caption><code>code</code> here</caption>" in text


def test_widths() -> None:
    assert (
        '<colgroup><col style="width: 30%"><col style="width: 70%"></colgroup>'
        in TextTable(["a", "b"], [], "", (30, 70))._repr_html_()
    )


def test_links_elsewhere_stay_as_they_are() -> None:
    text = TextTable(["a"], [["[there](https://example.org/x.html)"]])._repr_html_()
    assert '<a href="https://example.org/x.html">there</a>' in text and "<caption>" not in text


def test_markdown() -> None:
    lines = TABLE._repr_markdown_().splitlines()
    assert lines[:2] == ["| Name | What <it> says |", "| --- | --- |"]
    assert lines[2].endswith("(03_cmm.ipynb)<br>and [words](words.md#gamma), a \\| b |")
    assert lines[-1] == "`code` here"


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError):
        TextTable(["a", "b"], [["1", "2", "3"]])._repr_html_()
