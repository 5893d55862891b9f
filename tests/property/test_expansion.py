"""The kubelet expands `$(NAME)` in a command: our texts arrive as they were written, Plane's words expanded once."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.admission import oracle
from tests.property import strategies
from webhook import payload
from webhook.settings import Settings

TEXTS = (payload.GUARD, payload.PACKED)
# What the kubelet would take for names in our own texts if their dollars were single.
INSIDE = sorted({name for text in TEXTS for name in re.findall(r"\$\(([^)]*)\)", text)})


def expand(text: str, env: dict[str, str]) -> str:
    """Expand as k8s.io/kubernetes/third_party/forked/golang/expansion does, step by step."""
    out: list[str] = []
    checkpoint = cursor = 0
    while cursor < len(text):
        if text[cursor] == "$" and cursor + 1 < len(text):
            out.append(text[checkpoint:cursor])
            read, is_variable, advance = variable(text[cursor + 1 :])
            out.append(env.get(read, f"$({read})") if is_variable else read)
            cursor += advance
            checkpoint = cursor + 1
        cursor += 1
    return "".join(out) + text[checkpoint:]


def variable(text: str) -> tuple[str, bool, int]:
    """Read what follows a dollar: the text, whether it is a variable's name, and how far it reaches."""
    if text[0] == "$":
        return "$", False, 1
    if text[0] != "(":
        return "$" + text[0], False, 1
    end = text.find(")", 1)
    return ("$(", False, 1) if end < 0 else (text[1:end], True, end + 1)


RULES = {"$(A)": "a", "$$(A)": "$(A)", "$$$(A)": "$a", "$$$$(A)": "$$(A)", "$(A)$(B)": "a$(A)", "$(C)": "$(C)"}
RULES |= {"": "", "$": "$", "$$": "$", "$$$": "$$", "$(": "$(", "$(A": "$(A", "$()": "$()", "$)": "$)", "$A": "$A"}
RULES |= {"$((A))": "$((A))", "$($(A))": "$($(A))", "x$(A)y": "xay", "$(A)(B)": "a(B)", "$é$(A)": "$éa"}


@pytest.mark.parametrize(("text", "expanded"), RULES.items())
def test_the_rules(text: str, expanded: str) -> None:
    assert expand(text, {"A": "a", "B": "$(A)"}) == expanded


values = st.sampled_from((*strategies.REFERENCES, "plain")) | strategies.texts
environments = st.dictionaries(st.sampled_from(("PORT", "A", "B", "", *INSIDE)) | strategies.texts, values, max_size=4)


@given(strategies.plane_pods, strategies.settings, environments)
def test_what_arrives_in_the_container(pod: Any, settings: Settings, env: dict[str, str]) -> None:
    outcome = oracle.admit(pod, settings)
    profile = settings.profile("plane")
    for old, new in zip(pod["spec"]["containers"], outcome.pod["spec"]["containers"], strict=True):
        before, after = ([expand(word, env) for word in each.get("command") or []] for each in (old, new))
        if len(after) == len(before):
            assert after == before
            continue
        ours, theirs = after[: oracle.PREFIX_WORDS], after[oracle.PREFIX_WORDS :]
        assert theirs == before
        assert [*ours[:4], *ours[6:]] == ["/bin/sh", "-c", payload.GUARD, "plane-webhook", payload.PACKED]
        told = json.loads(ours[5])
        assert told["digest"] == profile.digest
        assert ours[4] == " ".join(f"{name}={value}" for name, value in told["env"].items())


@given(st.sampled_from(TEXTS), environments)
def test_doubled_dollars_arrive_as_single_ones(text: str, env: dict[str, str]) -> None:
    assert expand(text.replace("$", "$$"), env) == text


@pytest.mark.parametrize("text", [text for text in TEXTS if "$(" in text])
def test_single_dollars_would_not(text: str) -> None:
    assert INSIDE
    assert expand(text, dict.fromkeys(INSIDE, "x")) != text
