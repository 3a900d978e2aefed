"""What ``lipwire doctor`` looks at, one module for each group of checks.

A module's functions take what they look at as arguments, and return checks; nothing is changed.
"""
