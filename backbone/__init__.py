"""Backbone: a small library to build services on a backbone of events."""
