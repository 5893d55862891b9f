"""The real Plane, from a user's checkout, with and without us: what each does while its broker is in trouble."""
