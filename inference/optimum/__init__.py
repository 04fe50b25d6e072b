"""The way to a mode and what is seen on it: L-BFGS, its curvature, and the normals along the path."""
