"""`make demo`: the main job, told step by step. Leaves nothing behind, however it ends."""
