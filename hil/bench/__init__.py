"""How fast the controller thinks, measured beside a peer in the same run on the same problems."""
