"""What must hold, each rule a function of what was seen that yields what breaks it."""
