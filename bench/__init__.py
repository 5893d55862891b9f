"""What things cost and what they lose, measured beside others: one program for each question."""
