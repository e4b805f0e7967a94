"""Texts labelled by hand as normal, loop, gibberish or salad, and what the detectors say of them."""
