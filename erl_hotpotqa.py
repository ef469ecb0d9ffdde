"""HotpotQA for verifiers, which finds it by this module's name: `vf-eval erl-hotpotqa`."""

from erl_envs.adapters.verifiers import ChatHarness, TextGame, TextTaskset


class HotpotQATaskset(TextTaskset):
    """HotpotQA's tasks."""

    env = "hotpotqa"


__all__ = ["ChatHarness", "HotpotQATaskset", "TextGame"]
