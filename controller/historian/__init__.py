"""The historian: keeps every cycle and every event, and gives them back."""
