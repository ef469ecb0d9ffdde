"""FrozenLake for verifiers, which finds it by this module's name: `vf-eval erl-frozenlake`."""

from erl_envs.adapters.verifiers import ChatHarness, TextGame, TextTaskset


class FrozenLakeTaskset(TextTaskset):
    """FrozenLake's tasks."""

    env = "frozenlake"


__all__ = ["ChatHarness", "FrozenLakeTaskset", "TextGame"]
