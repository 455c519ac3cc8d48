"""The paper's published numbers as data, each with its place and with how certain it is."""
