"""Experiential reinforcement learning against GRPO, on a laptop or on GPUs."""
