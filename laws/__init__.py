"""The laws of the shop, checked over the whole log and the provider's books by a fold that shares no code with what it checks."""
