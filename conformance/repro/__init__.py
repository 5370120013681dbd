"""A failing case as a stand-alone script for an upstream issue."""
