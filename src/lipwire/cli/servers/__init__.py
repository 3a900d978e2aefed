"""What the commands that start servers share."""
