"""Templates render the same everywhere, and prompts are found in replies of every form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptreel import profiles, prompts
from promptreel.errors import ReplyError, UnknownName

PROMPT = "A large red circle moves left quickly. The background is plain navy."


@pytest.mark.parametrize(
    "reply",
    [
        PROMPT,
        f"  {PROMPT}\n",
        f'"{PROMPT}"',
        f"“{PROMPT}”",
        f"<PROMPT>{PROMPT}</PROMPT>",
        f"<think>The user wants a circle.</think>\n<prompt>\n{PROMPT}\n</prompt>",
        f"Sure, here you go:\n```\n{PROMPT}\n```",
        f"Here is the rewritten prompt: {PROMPT}",
        f"New prompt:\n{PROMPT}",
        f"{PROMPT} {PROMPT}",
        f"<PROMPT>{PROMPT}</PROMPT><PROMPT>another</PROMPT>",
    ],
)
def test_the_prompt_is_found_in_every_form_of_reply(reply: str) -> None:
    assert prompts.parse_rewrite(reply) == PROMPT


@pytest.mark.parametrize("reply", ["", "  \n", "<think>hm</think>", "```\n```", "Prompt:"])
def test_a_reply_without_a_prompt_is_an_error(reply: str) -> None:
    with pytest.raises(ReplyError, match="no prompt"):
        prompts.parse_rewrite(reply)


@pytest.mark.parametrize(
    "prompt",
    [
        "Surefooted goat climbs a cliff: dramatic light",
        "Sure-footed goat climbs a cliff: dramatic light",
        "Here is a cat on a roof: fluffy, orange",
        "Here's Johnny: a man behind a door",
        "Image: a cat",
    ],
)
def test_a_colon_in_a_prompt_does_not_make_a_label(prompt: str) -> None:
    assert prompts.parse_rewrite(prompt) == prompt


@pytest.mark.parametrize(
    "label",
    [
        "Sure:", "Sure, here you go:", "Sure! Here’s a prompt:", "Here is the prompt:", "Here’s your rewritten prompt:",
        "Here is a prompt for this model:", "Sure.\nPrompt:", "Image prompt:",
    ],
)  # fmt: skip
def test_labels_before_the_prompt_are_left_out(label: str) -> None:
    assert prompts.parse_rewrite(f"{label} {PROMPT}") == PROMPT


@given(st.text(max_size=200))
def test_a_parsed_prompt_is_parsed_to_itself(reply: str) -> None:
    try:
        once = prompts.parse_rewrite(reply)
    except ReplyError:
        return
    assert prompts.parse_rewrite(once) == once


@given(st.from_regex(r"[A-Za-z][A-Za-z ,]{0,60}[a-z]\.", fullmatch=True).filter(lambda t: ":" not in t))
def test_a_plain_prompt_is_kept_as_it_is(text: str) -> None:
    assert prompts.parse_rewrite(text) == " ".join(text.split())


def test_every_format_renders_every_task_it_has() -> None:
    profile = profiles.load("tiny").model_dump()
    history = [{"text": "a ball", "total": 1.5, "dimensions": {"alignment": 2.0, "sharpness": None}}]
    fields = {"query": "a red ball", "history": history, "draft": "a ball", "problems": ["lost: red"]}
    for task, format in [("rewrite", "brief"), ("rewrite", "standard"), ("propose", "brief"), ("propose", "standard")]:
        messages = prompts.render(task, format, profile=profile, **fields)
        assert messages[-1]["role"] == "user"
        assert "a red ball" in messages[-1]["content"]
    assert "48 tokens" in prompts.render("rewrite", "standard", profile=profile, query="x")[0]["content"]
    assert "missing" in prompts.render("propose", "standard", profile=profile, **fields)[1]["content"]


def test_an_error_about_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'brief'.*standard"):
        prompts.render("rewrite", "breif", query="x")


def test_template_syntax_in_a_query_is_data() -> None:
    assert "{{ 7 * 7 }}" in prompts.render("rewrite", "brief", query="{{ 7 * 7 }}")[0]["content"]


FIELDS = {
    "query": "a cat", "draft": "a cat", "problems": ["lost: red"], "tokens": 99, "words": 9, "rewrite": "a cat",
    "history": [],
}  # fmt: skip
TASKS = [("rewrite", format) for format in prompts.INSTRUCTED]
TASKS += [(task, "standard") for task in ("propose", "refine", "shorten")]


@pytest.mark.parametrize(("task", "format"), TASKS)
def test_models_are_told_whether_the_prompt_is_for_an_image_or_a_video(task: str, format: str) -> None:
    image, video = (
        prompts.render(task, format, profile=profiles.load(name).model_dump(), **FIELDS)[0]["content"]
        for name in ("sdxl", "cogvideox-2b")
    )
    assert "text-to-image model" in image
    assert "video" not in image
    assert "text-to-video model" in video


def test_judges_are_told_that_a_prompt_may_be_for_either() -> None:
    assert "text-to-video or text-to-image model" in prompts.render("verdict", "standard", **FIELDS)[0]["content"]


@pytest.mark.parametrize("profile", ["tiny", "tiny-image"])
def test_students_are_asked_in_the_exact_words_of_their_training(profile: str) -> None:
    told = {"profile": profiles.load(profile).model_dump(), **FIELDS}
    said = [prompts.render(task, "brief", **told) for task in ("rewrite", "propose", "refine")]
    assert [[message["content"] for message in one] for one in said] == [
        ["Rewrite for video: a cat"],
        ["Improve for video: a cat"],
        ["Repair for video: a cat\nDraft: a cat\nProblems: lost: red"],
    ]
