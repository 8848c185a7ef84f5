"""Clients that nobody here wrote, each in every version and over every transport that it speaks, through one script."""
