"""Synthetic faces with exact landmarks."""
