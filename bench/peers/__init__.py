"""The webhook beside others that do the same to the same pod, and beside a server that only answers."""
