"""Parametric modelling: families of laws, what data say of their parameters, and what no estimator can beat."""
