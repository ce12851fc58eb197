"""What every adapter of a port must do, written once; a test class inherits it and offers the adapter."""
