"""What can be wrong with a package, and how that is found."""
