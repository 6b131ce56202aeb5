"""Campaigns: one scenario, many plants; how often it fails, and which mismatch hurts which KPI."""
