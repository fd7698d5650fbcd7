"""Proposes a config for a folder of downloaded data, with the reason for every key."""
