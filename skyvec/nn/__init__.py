"""Torch parts that know no astronomy."""
