"""Leaderboards whose numbers are recomputed by replaying transcripts.

`python -m erl_envs.leaderboard tracks | submit | verify | proposed | build`.
"""
