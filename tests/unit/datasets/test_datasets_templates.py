"""The prompts that travel with the software."""

import json

from service.datasets.templates import builtin_templates


def test_the_three_and_their_answers():
    templates = builtin_templates()
    assert sorted(templates) == ["hate_speech_policy", "hate_speech_simple", "label_only"]
    assert all(name == template.name for name, template in templates.items())
    for name in ("hate_speech_simple", "hate_speech_policy"):
        template = templates[name]
        assert template.user == 'Text: "$text"'
        assert json.loads(template.completion_for("hate")) == {"classification": "hate_speech"}
        assert json.loads(template.completion_for("normal")) == {"classification": "not_hate"}
        assert not template.shows_group
    only = templates["label_only"]
    assert (only.system, only.user, only.completion_for("spam")) == (None, "$text", "spam")


def test_the_simple_one_is_the_sentence_as_published():
    assert builtin_templates()["hate_speech_simple"].system == (
        "You are an expert hate speech detection system. Decide whether the given text contains "
        "hate speech targeting a protected group."
    )


def test_the_policy_is_long_and_names_both_answers():
    template = builtin_templates()["hate_speech_policy"]
    assert 600 < len(template.system.split()) < 900
    for label in ("hate", "normal"):
        assert template.completion_for(label) in template.system


def test_the_table_is_the_callers_own():
    builtin_templates().clear()
    assert builtin_templates()
