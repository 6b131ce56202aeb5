"""The suite: scenarios in all their variants, run at once where wanted, and judged."""
