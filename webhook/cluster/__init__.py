"""Everything that talks to a cluster: certificates and registration kept right, and what is said of them."""
