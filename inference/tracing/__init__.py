"""A program run to be looked at: its sites, what it learned, and the same program over many draws."""
