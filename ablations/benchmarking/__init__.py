"""What a step costs here, side by side with the plain way of doing the same, and how far from what the machine can do."""
