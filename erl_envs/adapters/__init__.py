"""The environments inside other frameworks, a small module for each.

A module imports its framework at its top and is imported by nobody else, so no framework is
needed before it is asked for.
"""
