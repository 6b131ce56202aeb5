"""The swarm: random faults and mismatch by seed, invariants every cycle, and a way back after."""
