"""Files that people write: policies, rollouts, fleets."""
