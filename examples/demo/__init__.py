"""Five worker processes elect a leader and take turns under a lock, while one is killed and one is cut off."""
