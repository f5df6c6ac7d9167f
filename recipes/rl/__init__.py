"""What reinforcement learning does to a model that forks: the start models, the runs, their figures."""
