import re

import pytest
import yaml

from dgr_lightning import cards


def test_a_card_opens_with_the_header_of_the_hub_and_tells_facts_settings_and_sections_in_order():
    settings = {"refine": {"strategy": "dgr"}, "data": {"limit": None}}
    card = cards.compose_card(
        {"tags": ["safety"], "license": "mit"}, "A set", "Text.", {"examples": "40"}, settings, {"Template": "{{ x }}"}
    )
    _, header, body = card.split("---\n", 2)
    assert list(yaml.safe_load(header).items()) == [("tags", ["safety"]), ("license", "mit")]
    assert body.startswith("\n# A set\n\nText.\n\n| | |\n| --- | --- |\n| examples | 40 |\n\n## Settings\n\n```yaml\n")
    assert yaml.safe_load(body.split("```yaml\n")[1].split("```")[0]) == settings
    assert body.endswith("```\n\n## Template\n\n{{ x }}\n")


def test_a_card_may_end_with_its_settings():
    assert cards.compose_card({}, "A model", "Text.", {}, {"sft": {"lr": 1e-05}}).endswith("sft:\n  lr: 1.0e-05\n```\n")


HOSTILE = [
    "a | b",
    "x\n---\n# Heading",
    "`code` ``` block",
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![img](http://example.org/x.png)",
    "&lt;b&gt;",
    "\x1b]0;owned\x07\u202e",
    "null",
    "- item: {a: b} # c",
    "x\n```\n## Owned\n````",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_it_is_written_and_makes_no_markup(name):
    card = cards.compose_card(
        {"tags": [name]}, name, f"About {cards.plain(name)}.", {name: name}, {"data": {"name": name}}, {name: "Text."}
    )
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header) == {"tags": [name]}
    fence = re.search(r"^(`{3,})yaml$", body, re.M)[1]
    block, rest = body.split(f"\n{fence}yaml\n")[1].split(f"\n{fence}\n", 1)
    assert yaml.safe_load(block) == {"data": {"name": name}}
    assert max(map(len, re.findall("`+", block)), default=0) < len(fence)
    outside = body.replace(block, "")
    assert len(re.findall(r"^#{1,6} ", outside, re.M)) == 3, "title, settings, section"
    assert not re.search(r"(?<!\\)[<>\[\]]", outside) and "\x1b" not in card
    row = next(line for line in body.splitlines() if line.startswith("| ") and line != "| | |" and "---" not in line[:6])
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert rest.count("Text.") == 1
