"""Figures of our own, always marked as such: what a call will use, and what one used whose provider did not say."""
