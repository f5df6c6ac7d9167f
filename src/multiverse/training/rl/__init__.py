"""Reinforcement learning with rollouts that fork, by the engine, over the weights that are trained."""
