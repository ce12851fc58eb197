"""The checker: judges a shop by what lies in its log, its views and the provider's books, and by what its clients were told.

It shares no code with services or runtime: generated messages, client libraries and `laws` are all it knows.
"""
