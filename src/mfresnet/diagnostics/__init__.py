"""Diagnostics: pure functions of (model, arrays), usable on other people's models."""
