"""Predicted against true lesions: what the evaluations of several rooms share."""
