"""Plants from other modelling tools: FMI 2 and 3 co-simulation units (FMUs) behind the PLC."""
