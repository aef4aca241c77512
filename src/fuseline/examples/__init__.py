"""Workflows that come with Fuseline: to try it with, and to read."""
