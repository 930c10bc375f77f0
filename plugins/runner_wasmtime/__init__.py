"""A plugin of runner."""
