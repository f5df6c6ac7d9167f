"""What a rollout is worth: small reward functions, ours or a user's, weighted and added up. No torch."""

from .config import KINDS, Judge, Reward, advice, check_rewards
from .rewards import Rewards

__all__ = ["KINDS", "Judge", "Reward", "Rewards", "advice", "check_rewards"]
