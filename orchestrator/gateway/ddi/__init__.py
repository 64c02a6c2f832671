"""hawkBit's Direct Device Integration: the protocol of SWUpdate, the RAUC updater and Zephyr."""
