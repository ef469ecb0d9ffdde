"""Sokoban for verifiers, which finds it by this module's name: `vf-eval erl-sokoban`."""

from erl_envs.adapters.verifiers import ChatHarness, TextGame, TextTaskset


class SokobanTaskset(TextTaskset):
    """Sokoban's tasks."""

    env = "sokoban"


__all__ = ["ChatHarness", "SokobanTaskset", "TextGame"]
