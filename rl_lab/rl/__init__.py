"""The trial-and-error module: agents on Gymnasium environments, by Stable-Baselines3."""
