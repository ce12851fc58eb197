"""A payment provider: holds, takes and gives back money on a card. A stand-in for a real one; it knows no shop."""
