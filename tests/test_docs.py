"""The relative links of the pages lead to files that exist."""
import re
from pathlib import Path

import pytest

from experiments import pages

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('configs/**/*.md')])
CODE = re.compile(r'```.*?```|`[^`\n]*`', re.DOTALL)
LINK = re.compile(r'\]\(([^)\s]+)[^)]*\)|(?:src|href)="([^"]+)"')


def relative_links(text: str) -> list[str]:
    """The link targets outside code, without anchors, that are neither addresses nor mere anchors."""
    links = [first or second for first, second in LINK.findall(CODE.sub('', text))]
    return [link.split('#')[0] for link in links if not re.match(r'[a-z]+:|#', link)]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_exist(page):
    dead = [link for link in relative_links(page.read_text(encoding='utf-8')) if not (page.parent / link).exists()]
    assert not dead, f'{page.relative_to(ROOT)} links to files that do not exist: {dead}'


def test_which_links_are_checked():
    text = '[a](docs/a.md#part) ![b](b.png "title") [c](https://x.org) [d](#here) `[e](e.md)` <img src="f.png">'
    assert relative_links(text) == ['docs/a.md', 'b.png', 'f.png']


def test_the_tables_are_those_of_the_records():
    for page in pages.pages():
        text = page.read_text(encoding='utf-8')
        assert text.count('<!-- begin') == text.count('<!-- end ') == len(re.findall(pages.MARKED, text, re.DOTALL))
        assert pages.rendered(text) == text, f'{page.name} is out of date: python -m experiments render'
