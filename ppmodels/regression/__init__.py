"""One quantity from others."""
