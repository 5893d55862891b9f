"""Plane's Django app: the models, the migrations and the commands that the entrypoints call."""
