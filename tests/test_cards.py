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
