"""TRL: environments as tools of a tool-calling model, or played in plain text by any model.

Tested with TRL 1.16.0. `GRPOTrainer(environment_factory=FrozenLake)` lets a model call tools;
`GRPOTrainer(rollout_func=TextRollout(dataset), reward_funcs=env_reward)` plays what the model
writes, on the very tokens it sampled.
"""

from erl_envs.adapters.trl.text import TextRollout, env_reward
from erl_envs.adapters.trl.tools import FrozenLake, HotpotQA, Sokoban, tool_rows
from erl_envs.adapters.versions import require

require("trl", "1.16")

__all__ = ["FrozenLake", "HotpotQA", "Sokoban", "TextRollout", "env_reward", "tool_rows"]
