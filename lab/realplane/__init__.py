"""The real Plane, from a checkout that the user brings: what the small Plane of the lab stands for, to compare with.

Nothing here may contain a line of Plane's code, change the checkout, or be needed where there is no checkout.
"""
